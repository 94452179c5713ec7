# SPDX-License-Identifier: BSD-2-Clause
"""Commands of owner_lab_process.py for connections that are measured."""

from __future__ import annotations

import select
import socket
import sys
import time
from threading import Thread

from workload import AF_UNSPEC_ADDRESS, libc

SEGS_IN = 140  # in struct tcp_info of linux/tcp.h: tcpi_segs_in


class TcpClient:
    """A method for each command; sockets are identified by their descriptors."""

    sockets: dict[int, socket.socket]

    def stream(self, fd: int, count: int) -> None:
        """Send ``count`` bytes, as fast as possible."""
        self.sockets[fd].sendall(bytes(count))

    def spawn_stream(self, fd: int, count: int) -> None:
        """Do the same in a thread of its own."""
        Thread(target=self.stream, args=(fd, count)).start()

    def await_event(self, fd: int) -> None:
        """Wait until there is data to read or a connection to accept."""
        select.select([fd], [], [])

    def await_data(self, fd: int, count: int) -> int:
        """Wait until ``count`` bytes can be read, without reading them."""
        return len(self.sockets[fd].recv(count, socket.MSG_PEEK | socket.MSG_WAITALL))

    def shut_down(self, fd: int, how: int) -> None:
        self.sockets[fd].shutdown(how)

    def disconnect(self, fd: int) -> None:
        assert libc.connect(fd, AF_UNSPEC_ADDRESS, len(AF_UNSPEC_ADDRESS)) == 0

    def connect_again(self, fd: int, address: str, port: int) -> int:
        """Connect a socket that was disconnected; return its port."""
        self.sockets[fd].connect((address, port))
        return int(self.sockets[fd].getsockname()[1])

    def ping(self, fd: int, rounds: int) -> None:
        """Send a byte, and wait for the answer; nothing else is in flight."""
        for _ in range(rounds):
            self.sockets[fd].send(b"x")
            assert self.sockets[fd].recv(1)

    def pong(self, fd: int, rounds: int) -> None:
        """Answer ``ping``."""
        for _ in range(rounds):
            assert self.sockets[fd].recv(1)
            self.sockets[fd].send(b"x")

    def segments_received(self, fd: int) -> int:
        info = self.sockets[fd].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int.from_bytes(info[SEGS_IN : SEGS_IN + 4], sys.byteorder)

    def backlog(self, fd: int, length: int) -> None:
        self.sockets[fd].listen(length)

    def pause(self, seconds: float) -> None:
        """Sleep: the measured pause of an application."""
        time.sleep(seconds)
