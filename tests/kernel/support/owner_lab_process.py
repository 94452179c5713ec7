# SPDX-License-Identifier: BSD-2-Clause
"""Processes that run commands on sockets, one after the other.

The first one is started as ``python owner_lab_process.py FD``, with a socket for commands; the
others are forked from it, or from one another, and moved into cgroups before anything else. Sockets
are identified by their descriptors, which a child inherits.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from servers import IPPROTO_MPTCP, listen
from tcp_client import TcpClient
from traffic import RESET_ON_CLOSE
from workload import libc

IP_BIND_ADDRESS_NO_PORT = 24
PR_SET_PDEATHSIG = 1
CLONE_NEWNET = 0x40000000
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
MESSAGE = 1 << 16
CLOSE, RESET = b"C", b"R"  # requests of a client to a server
BURST = 8


def move(*cgroups: str) -> None:
    """Move this process into cgroups."""
    for cgroup in cgroups:
        (Path(cgroup) / "cgroup.procs").write_text("0")


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


def _connected(source: str, address: str, port: int, *how: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP if "mptcp" in how else 0)
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))
    if "fastopen" in how:
        sock.sendto(b"x", socket.MSG_FASTOPEN, (address, port))
    else:
        sock.connect((address, port))
    return sock


def _receive(sock: socket.socket, count: int) -> int:
    """Read ``count`` bytes, or all until the end; return how many."""
    got = 0
    while got < count and (data := sock.recv(min(4096, count - got))):
        got += len(data)
    return got


class Actor(TcpClient):
    """The commands of the process: a method each."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.sockets: dict[int, socket.socket] = {}

    def run(self) -> None:
        """Run commands until the other side closes."""
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        while True:
            message, given, _, _ = socket.recv_fds(self.control, MESSAGE, 1)
            if not message:
                for sock in self.sockets.values():
                    sock.close()  # before the other side sees our end
                os._exit(0)
            name, *arguments = json.loads(message)
            try:
                answer = {"is": getattr(self, name)(*given, *arguments)}
            except OSError as error:
                answer = {"error": repr(error)}
            self.control.send(json.dumps(answer).encode())

    def _keep(self, sock: socket.socket) -> int:
        self.sockets[sock.fileno()] = sock
        return sock.fileno()

    # -- processes

    def fork(self, control: int) -> int:
        """Fork a child with copies of all sockets, controlled by ``control``; return its PID."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        child = os.fork()
        if child == 0:
            self.control.close()
            self.control = socket.socket(fileno=control)
            self.run()
        os.close(control)
        return child

    def move(self, *cgroups: str) -> None:
        move(*cgroups)

    def enter(self, netns: str) -> None:
        with Path(f"/run/netns/{netns}").open() as file:
            if libc.setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), netns)

    def execute(self) -> None:
        """Execute a new program with the same sockets, which answers this command."""
        fds = [self.control.fileno(), *self.sockets]
        for fd in fds:
            os.set_inheritable(fd, True)
        os.execv(sys.executable, [sys.executable, __file__, *map(str, fds)])

    def rename(self, comm: str) -> None:
        """Set the command name, as exec would."""
        Path("/proc/self/comm").write_text(comm)

    def outlive(self) -> None:
        """Survive the parent's end."""
        libc.prctl(PR_SET_PDEATHSIG, 0)

    def spin(self) -> None:
        while True:
            pass

    # -- one socket

    def listen(self, address: str, port: int = 0, *how: str) -> tuple[int, int]:
        sock = listen(address, port, *how)
        return self._keep(sock), sock.getsockname()[1]

    def connect(self, source: str, address: str, port: int, *how: str) -> int:
        return self._keep(_connected(source, address, port, *how))

    def accept(self, listener: int) -> int:
        return self._keep(self.sockets[listener].accept()[0])

    def accept_all(self, listener: int) -> None:
        """Wait in accept(), again and again, until the process is killed."""
        while True:
            self.sockets[listener].accept()[0].close()

    def ready(self, fd: int) -> bool:
        """Return whether there is data to read or a connection to accept."""
        return bool(select.select([fd], [], [], 0)[0])

    def send(self, fd: int, count: int = 1) -> None:
        """Send bytes one by one, each in a segment of its own."""
        self.sockets[fd].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            self.sockets[fd].send(b"x")

    def receive(self, fd: int, count: int) -> int:
        return _receive(self.sockets[fd], count)

    def set(self, fd: int, level: int, name: int, value: int | str) -> None:
        told = value.encode() if isinstance(value, str) else value
        self.sockets[fd].setsockopt(level, name, told)

    def fill(self, fd: int) -> int:
        """Send as much as the socket takes at once; return how much that is."""
        sent = 0
        try:
            while True:
                sent += self.sockets[fd].send(bytes(1 << 16), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return sent

    def tcp_info(self, fd: int) -> str:
        """Return struct tcp_info in hex."""
        return self.sockets[fd].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256).hex()

    def reset_after_tcp_info(self, fd: int) -> tuple[str, float]:
        """Reset the connection; return struct tcp_info until then, and the seconds in between."""
        begin = time.monotonic()
        last = self.tcp_info(fd)
        self.close(fd, "reset")
        return last, time.monotonic() - begin

    def local_port(self, fd: int) -> int:
        return int(self.sockets[fd].getsockname()[1])

    def close(self, fd: int, how: str = "") -> None:
        sock = self.sockets.pop(fd)
        if how == "reset":
            _reset(sock)
        sock.close()

    def wait_for_error(self, fd: int) -> int:
        """Wait until the connection fails; return the errno."""
        try:
            self.sockets[fd].recv(1)
        except OSError as error:
            return error.errno or 0
        return 0

    def keep(self, given: int) -> int:
        """Keep the descriptor that came with the command."""
        return self._keep(socket.socket(fileno=given))

    def put(self, channel: int, fd: int) -> None:
        """Send a socket through a unix socket, and close it here: it is in flight."""
        socket.send_fds(self.sockets[channel], [b"x"], [fd])
        self.close(fd)

    def take(self, channel: int) -> int:
        _, (fd,), _, _ = socket.recv_fds(self.sockets[channel], 1, 1)
        return self._keep(socket.socket(fileno=fd))

    def loop(self, fd: int) -> list[int]:
        """Put a socket in a cycle of unix sockets; return those to close, in this order.

        After that no process can get the socket, and a kernel thread collects and closes it.
        """
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        socket.send_fds(one, [b"x"], [fd, other.fileno()])
        self.close(fd)
        return [self._keep(other), self._keep(one)]

    # -- many

    def serve(self, listener: int, count: int) -> list[int]:
        """Echo until ``count`` connections have ended; return the ports of the peers."""
        peers = []
        with selectors.DefaultSelector() as selector:
            selector.register(self.sockets[listener], selectors.EVENT_READ)
            while count:
                for key, _ in selector.select():
                    if key.fd == listener:
                        accepted, peer = self.sockets[listener].accept()
                        peers.append(peer[1])
                        selector.register(accepted, selectors.EVENT_READ)
                        continue
                    sock: Any = key.fileobj
                    if not self._echo(sock):
                        selector.unregister(sock)
                        sock.close()
                        count -= 1
        return peers

    @staticmethod
    def _echo(sock: Any) -> bool:
        try:
            data = sock.recv(4096)
            if data[-1:] == RESET:
                _reset(sock)
            if data[-1:] in (CLOSE, RESET, b""):
                return False
            sock.send(data)
        except ConnectionError:
            return False
        return True

    def talk(self, source: str, target: tuple[str, int], count: int, rounds: int, end: str) -> None:
        """Make ``count`` connections, one after the other; ``end``: who ends them, and how."""
        for _ in range(count):
            with _connected(source, *target) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for _ in range(rounds):
                    for _ in range(BURST):
                        sock.send(b"x")
                    _receive(sock, BURST)
                if end == "client-reset":
                    _reset(sock)
                elif end != "client":
                    sock.send(CLOSE if end == "server" else RESET)
                    try:
                        sock.recv(1)
                    except ConnectionError:
                        assert end == "server-reset"

    def brief(
        self, casts: list[tuple[str, list[str]]], target: tuple[str, int], count: int, *how: str
    ) -> dict[str, list[int]]:
        """Connect in short-lived processes, in cgroups in turn; return their PIDs by source.

        With "one-pid" all of them have the first one's PID.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        made: dict[str, list[int]] = {source: [] for source, _ in casts}
        for number in range(count):
            source, cgroups = casts[number % len(casts)]
            child = os.fork()
            if child == 0:
                move(*cgroups)
                with _connected(source, *target) as sock:
                    sock.send(b"x")
                    os._exit(_receive(sock, 1) != 1)
            assert os.waitpid(child, 0)[1] == 0
            made[source].append(child)
            if "one-pid" in how:
                LAST_PID.write_text(str(child - 1))
        return made


def main() -> None:
    control, *fds = map(int, sys.argv[1:])
    actor = Actor(socket.socket(fileno=control))
    actor.sockets = {fd: socket.socket(fileno=fd) for fd in fds}
    if fds:
        actor.control.send(json.dumps({"is": None}).encode())
    actor.run()


if __name__ == "__main__":
    main()
