# SPDX-License-Identifier: BSD-2-Clause
"""Clients and servers of the faults: ``python apps.py FUNCTION ARGUMENTS``, the arguments as JSON.

A program waits for a line on stdin, so that it is in its cgroups before it opens a socket. It reports
a JSON object a line until it is killed. A request is two lengths and a payload of the first; the
answer is a payload of the second.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from typing import Any

LENGTHS = struct.Struct("!II")
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger
CHUNK = 65536
ETH_P_ARP = 0x0806
IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; of IPv6, too
TCP_MD5SIG = 14  # linux/tcp.h
REPORT_S = 0.5  # between two reports of a stream


def report(result: str, begin: float | None = None, **also: Any) -> None:
    seconds = None if begin is None else round(time.monotonic() - begin, 4)
    sys.stdout.write(json.dumps({"result": result, "seconds": seconds, **also}) + "\n")
    sys.stdout.flush()


def name_of(error: OSError) -> str:
    """Return an error as users see it; a program's own time limit has no errno."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return "timeout"
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def receive(sock: socket.socket, count: int) -> bytes:
    """Receive this many bytes; fewer are an error."""
    data = bytearray()
    while len(data) < count:
        more = sock.recv(min(count - len(data), CHUNK))
        if not more:
            raise ConnectionAbortedError(errno.ECONNABORTED, "closed")
        data += more
    return bytes(data)


def exchange(sock: socket.socket, size: int, answer: int) -> None:
    sock.sendall(LENGTHS.pack(size, answer) + bytes(size))
    receive(sock, answer)


def open_client(to: str, port: int, limit: float | None, **how: Any) -> socket.socket:
    """Connect; ``source`` and ``sport`` bind before, ``no_port`` and ``keepalive`` are options."""
    sock = socket.socket(family_of(to))
    try:
        if how.get("no_port"):
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if how.get("source") or how.get("sport"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((how.get("source") or "", how.get("sport") or 0))
        if keepalive := how.get("keepalive"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, keepalive)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        if user_limit := how.get("user_timeout"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_limit)
        sock.settimeout(limit)
        sock.connect((to, port))
    except BaseException:
        sock.close()
        raise
    return sock


def in_threads(count: int, work: Any) -> None:
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def call(
    to: str,
    port: int,
    *,
    limit: float | None = 2,
    pause: float = 0.1,
    workers: int = 2,
    size: int = 100,
    answer: int = 1000,
    reset: bool = False,
    silent: bool = False,
    sources: tuple[str, ...] = (),
    **how: Any,
) -> None:
    """Connect, make a request, close, again and again; ``silent`` makes no request."""
    turn = iter(range(10**9))

    def work() -> None:
        while True:
            begin = time.monotonic()
            if sources:
                how["source"] = sources[next(turn) % len(sources)]
            try:
                with open_client(to, port, limit, **how) as sock:
                    if not silent:
                        exchange(sock, size, answer)
                    if reset:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            except OSError as error:
                report(name_of(error), begin)
            else:
                report("ok", begin)
            time.sleep(pause)

    in_threads(workers, work)


def keep(
    to: str,
    port: int,
    *,
    limit: float | None = None,
    pause: float = 0.05,
    workers: int = 2,
    size: int = 100,
    answer: int = 1000,
    again: bool = True,
    checks: bool = False,
    **how: Any,
) -> None:
    """Make requests on one connection; ``again``: on a new one after an error.

    ``checks``: look before each request whether the server has closed, as pools of connections do.
    """

    def work() -> None:
        while True:
            begin = time.monotonic()
            try:
                with open_client(to, port, limit, **how) as sock:
                    while not (checks and select.select([sock], [], [], 0)[0]):
                        begin = time.monotonic()
                        exchange(sock, size, answer)
                        report("ok", begin)
                        time.sleep(pause)
            except OSError as error:
                report(name_of(error), begin)
                if not again:
                    return
            time.sleep(pause)

    in_threads(workers, work)


def hold(
    to: str, port: int, *, count: int = 1, limit: float | None = 2, wait: bool = False, **how: Any
) -> None:
    """Open connections and do nothing with them; ``wait`` for something to read from each."""
    socks = []
    for _ in range(count):
        begin = time.monotonic()
        try:
            socks.append(open_client(to, port, limit, **how))
        except OSError as error:
            report(name_of(error), begin)
        else:
            report("ok", begin)
    begin = time.monotonic()
    while wait and socks:
        for sock in select.select(socks, [], [])[0]:
            try:
                sock.settimeout(None)
                report("read" if sock.recv(CHUNK) else "closed", begin)
            except OSError as error:
                report(name_of(error), begin)
            socks.remove(sock)
            sock.close()
    threading.Event().wait()


def upload(
    to: str,
    port: int,
    *,
    workers: int = 1,
    limit: float | None = None,
    pause: float = 0,
    chunk: int = CHUNK,
    **how: Any,
) -> None:
    """Send without an end, and report the bytes that went into the socket."""

    def work() -> None:
        begin = time.monotonic()
        try:
            with open_client(to, port, limit, **how) as sock:
                report("connected", begin)
                data, sent, last = bytes(chunk), 0, time.monotonic()
                while True:
                    begin = time.monotonic()
                    sent += sock.send(data)
                    if time.monotonic() - last >= REPORT_S:
                        report("sent", last, bytes=sent)
                        sent, last = 0, time.monotonic()
                    if pause:
                        time.sleep(pause)
        except OSError as error:
            report(name_of(error), begin)

    in_threads(workers, work)


def listening(address: str, port: int, backlog: int, **how: Any) -> socket.socket:
    sock = socket.socket(family_of(address))
    option = socket.SO_REUSEPORT if how.get("reuseport") else socket.SO_REUSEADDR
    sock.setsockopt(socket.SOL_SOCKET, option, 1)
    if ":" in address:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(how.get("v6only", True)))
    if rcvbuf := how.get("rcvbuf"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    if device := how.get("device"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    sock.bind((address, port))
    sock.listen(backlog)
    report("listening")
    return sock


def answering(
    sock: socket.socket,
    *,
    think: float,
    work_s: float,
    reset: bool,
    idle: float | None,
    drain: float,
) -> None:
    """Answer the requests of a connection until it ends."""
    end = time.monotonic() + drain if drain else None
    with sock, suppress(OSError):
        sock.settimeout(idle)
        while True:
            size, answer = LENGTHS.unpack(receive(sock, LENGTHS.size))
            receive(sock, size)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                return
            time.sleep(think)
            busy = time.thread_time() + work_s
            while time.thread_time() < busy:
                pass
            sock.sendall(bytes(answer))
            if end and time.monotonic() > end:
                return


def serve(
    address: str,
    port: int,
    *,
    backlog: int = 128,
    think: float = 0,
    work_s: float = 0,
    reset: bool = False,
    idle: float | None = None,
    every: float = 0,
    drain: float = 0,
    **how: Any,
) -> None:
    """Answer requests: ``think`` first, or compute for ``work_s``; ``reset`` instead of an answer.

    A connection that is ``idle`` so long is closed; a connection is accepted ``every`` so many
    seconds; a connection of ``drain`` seconds is closed after its next answer.
    """
    server = listening(address, port, backlog, **how)
    how = {"think": think, "work_s": work_s, "reset": reset, "idle": idle, "drain": drain}
    while True:
        sock = server.accept()[0]
        threading.Thread(target=answering, args=(sock,), kwargs=how, daemon=True).start()
        time.sleep(every)


def mute(address: str, port: int, backlog: int = 128, close_after: float = 0, **how: Any) -> None:
    """Listen, and never accept; close the listener after so many seconds, or on another line."""
    server = listening(address, port, backlog, **how)
    ready = select.select([sys.stdin], [], [], close_after or None)[0]
    server.close()
    report("closed", by_line=bool(ready))
    threading.Event().wait()


def flap(address: str, port: int, seconds: float, backlog: int = 64) -> None:
    """Listen without accepting, close after so many seconds, and listen again."""
    while True:
        server = listening(address, port, backlog)
        time.sleep(seconds)
        server.close()


def announce(device: str, address: str, every: float, offset: float) -> None:
    """Tell the network by ARP again and again who has an IPv4 address."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((device, ETH_P_ARP))
        hardware, packed = sock.getsockname()[4], socket.inet_aton(address)
        reply = struct.pack(
            "!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 2, hardware, packed, hardware, packed
        )
        frame = b"\xff" * 6 + hardware + struct.pack("!H", ETH_P_ARP) + reply
        time.sleep(offset)
        while True:
            sock.send(frame)
            time.sleep(every)


def sink(
    address: str,
    port: int,
    rate: float | None = None,
    chunk: int = CHUNK,
    stop_after: int = 0,
    **how: Any,
) -> None:
    """Read all that comes; at ``rate`` bytes a second at most; nothing after ``stop_after`` bytes."""
    server = listening(address, port, 128, **how)

    def read(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            total, last, got = 0, time.monotonic(), 0
            while data := sock.recv(chunk):
                total += len(data)
                got += len(data)
                if stop_after and total >= stop_after:
                    threading.Event().wait()
                if rate:
                    time.sleep(len(data) / rate)
                if time.monotonic() - last >= REPORT_S:
                    report("received", last, bytes=got)
                    got, last = 0, time.monotonic()

    while True:
        threading.Thread(target=read, args=(server.accept()[0],), daemon=True).start()


def source(address: str, port: int, **how: Any) -> None:
    """Send without an end to whoever connects."""
    server = listening(address, port, 128, **how)

    def send(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            while True:
                sock.sendall(bytes(CHUNK))

    while True:
        threading.Thread(target=send, args=(server.accept()[0],), daemon=True).start()


def relay(address: str, port: int, to: str, to_port: int, resets_after: int = 0) -> None:
    """Pass requests to a server and answers back, and reset every so many-th in the middle."""
    server = listening(address, port, 128)
    turn = iter(range(1, 10**9))

    def pass_on(near: socket.socket) -> None:
        with near, suppress(OSError), open_client(to, to_port, None) as far:
            while True:
                head = receive(near, LENGTHS.size)
                size, answer = LENGTHS.unpack(head)
                body = receive(near, size)
                if resets_after and next(turn) % resets_after == 0:
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                    return
                far.sendall(head + body)
                near.sendall(receive(far, answer))

    while True:
        threading.Thread(target=pass_on, args=(server.accept()[0],), daemon=True).start()


def halves(to: str, port: int, *, workers: int = 2, pause: float = 0.05) -> None:
    """Send a request, end it by shutdown(SHUT_WR), and read the answer to its end."""

    def work() -> None:
        while True:
            begin = time.monotonic()
            with open_client(to, port, None) as sock:
                sock.sendall(bytes(5000))
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(CHUNK):
                    pass
            report("ok", begin)
            time.sleep(pause)

    in_threads(workers, work)


def serve_halves(address: str, port: int, think: float = 0, **how: Any) -> None:
    """Answer requests that end by a half-close."""
    server = listening(address, port, 128, **how)

    def answer(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            while sock.recv(CHUNK):
                pass
            time.sleep(think)
            sock.sendall(bytes(2000))

    while True:
        threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()


def events(address: str, port: int, every: float, **how: Any) -> None:
    """Answer a request with a line every so many seconds, without an end."""
    server = listening(address, port, 128, **how)

    def send(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            sock.recv(CHUNK)
            while True:
                sock.sendall(b"data: x\n\n")
                time.sleep(every)

    while True:
        threading.Thread(target=send, args=(server.accept()[0],), daemon=True).start()


def subscribe(to: str, port: int, count: int = 2) -> None:
    """Ask for events, and read them."""

    def work() -> None:
        with open_client(to, port, None) as sock:
            sock.sendall(b"GET\n")
            while sock.recv(CHUNK):
                report("ok")

    in_threads(count, work)


def batches(to: str, port: int, *, lines: int = 20, pause: float = 0.1, workers: int = 3) -> None:
    """Send lines that nobody answers, some on each connection, as shippers of logs do."""

    def work() -> None:
        while True:
            begin = time.monotonic()
            with open_client(to, port, None) as sock:
                for _ in range(lines):
                    sock.sendall(bytes(200))
                    time.sleep(pause)
            report("ok", begin)

    in_threads(workers, work)


def eyeballs(first: str, second: str, port: int, pause: float = 0.1) -> None:
    """Call one address, and the other one if that is refused."""
    while True:
        begin = time.monotonic()
        for to in (first, second):
            with suppress(OSError), open_client(to, port, 2) as sock:
                exchange(sock, 100, 1000)
                report("ok", begin)
                break
        time.sleep(pause)


def download(to: str, port: int, rcvbuf: int = 0, workers: int = 2) -> None:
    """Read all that a source sends."""

    def work() -> None:
        sock = socket.socket(family_of(to))
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.connect((to, port))
        total, last = 0, time.monotonic()
        while data := sock.recv(CHUNK):
            total += len(data)
            if time.monotonic() - last > REPORT_S:
                report("received", last, bytes=total)
                total, last = 0, time.monotonic()

    in_threads(workers, work)


def too_large(address: str, port: int, most: int = 100_000, **how: Any) -> None:
    """Close a connection after so many bytes of a request, as a server that takes no more."""
    server = listening(address, port, 128, **how)
    while True:
        with server.accept()[0] as sock, suppress(OSError):
            receive(sock, most)
            sock.sendall(b"HTTP/1.1 413")


def signed(address: str, peer: str, port: int, key: str, calls: bool = False) -> None:
    """Serve, or call, with TCP MD5 signatures; each connection is closed at once."""
    family = family_of(address)
    packed = socket.inet_pton(family, peer)
    where = struct.pack(
        "=HHI16s" if family == socket.AF_INET6 else "=HH4s",
        *((family, 0, 0, packed) if family == socket.AF_INET6 else (family, 0, packed)),
    ).ljust(128, b"\0")
    option = where + struct.pack("=BBHI80s", 0, 0, len(key), 0, key.encode())

    def signing() -> socket.socket:
        sock = socket.socket(family)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, option)
        return sock

    with signing() as server:
        if not calls:
            server.bind((address, port))
            server.listen()
            report("listening")
        while not calls:
            server.accept()[0].close()
    while True:
        begin = time.monotonic()
        with signing() as sock:
            sock.settimeout(2)
            try:
                sock.connect((peer, port))
            except OSError as error:
                report(name_of(error), begin)
            else:
                report("ok", begin)
        time.sleep(0.1)


def cancels(to: str, port: int, after: float = 0.1) -> None:
    """Begin to connect, and give it up soon."""
    while True:
        with suppress(OSError), socket.socket(family_of(to)) as sock:
            sock.settimeout(after)
            sock.connect((to, port))
        report("ok")
        time.sleep(0.2)


def half_open(to: str, port: int, count: int, source: str) -> None:
    """Begin connections again and again, whose handshakes never end if their answers are lost."""
    while True:
        socks = [socket.socket(family_of(to)) for _ in range(count)]
        for sock in socks:
            sock.bind((source, 0))
            sock.setblocking(False)
            sock.connect_ex((to, port))
        report("ok")
        time.sleep(0.2)
        for sock in socks:
            sock.close()


def main() -> None:
    name, arguments = sys.argv[1:]
    sys.stdin.readline()
    globals()[name](**json.loads(arguments))


if __name__ == "__main__":
    main()
