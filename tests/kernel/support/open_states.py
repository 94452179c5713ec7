# SPDX-License-Identifier: BSD-2-Clause
"""A process whose sockets are in all states of TCP, in its network namespace, until its stdin ends.

Arguments: addresses, and how many idle connections to each. It prints a line of JSON with its ports once
everything is there.
"""

from __future__ import annotations

import json
import socket
import sys

LINGER_S = 600
NOBODY = "192.0.2.77"  # routed, and silent; IPv6 tells loopback's senders that nobody is there


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listen(address: str, backlog: int = 64) -> socket.socket:
    server = socket.socket(family_of(address))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    server.bind((address, 0))
    server.listen(backlog)
    return server


def pair(server: socket.socket) -> tuple[socket.socket, socket.socket]:
    near = socket.socket(server.family)
    near.connect(server.getsockname()[:2])
    return near, server.accept()[0]


def fill(sock: socket.socket) -> None:
    """Send until neither side takes more."""
    sock.settimeout(0.2)
    try:
        while True:
            sock.send(b"x" * 65536)
    except TimeoutError:
        pass


def states(address: str, idle: int) -> tuple[dict[str, int], list[socket.socket]]:
    kept: list[socket.socket] = []
    server = listen(address)
    kept.append(server)
    ports = {"server": server.getsockname()[1]}

    def opened(name: str) -> tuple[socket.socket, socket.socket]:
        near, far = pair(server)
        ports[name] = near.getsockname()[1]
        return near, far

    near, far = opened("established")
    near.sendall(b"x" * 700)  # nobody reads it
    kept += [near, far]
    near, far = opened("keepalive")
    near.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    kept += [near, far]
    near, far = opened("full")
    fill(near)
    kept += [near, far]
    near, far = opened("time_wait")
    near.close()
    far.recv(1)
    far.close()
    near, far = opened("orphan")  # FIN_WAIT2 without a process; and CLOSE_WAIT
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, LINGER_S)
    near.close()
    kept.append(far)
    waiting = listen(address)
    kept.append(waiting)
    ports["waiting"] = waiting.getsockname()[1]
    for _ in range(3):  # for accept()
        sock = socket.socket(waiting.family)
        sock.connect(waiting.getsockname()[:2])
        kept.append(sock)
    deferring = listen(address)
    deferring.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, LINGER_S)
    kept.append(deferring)
    ports["deferring"] = deferring.getsockname()[1]
    sock = socket.socket(deferring.family)
    sock.connect(deferring.getsockname()[:2])  # SYN_RECV until it sends data
    kept.append(sock)
    if server.family == socket.AF_INET:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex((NOBODY, 9))
        ports["syn_sent"] = sock.getsockname()[1]
        kept.append(sock)
    for _ in range(idle):
        kept += pair(server)
    return ports, kept


def main() -> None:
    idle = int(sys.argv[1])
    told, kept = {}, []
    for address in sys.argv[2:]:
        ports, socks = states(address, idle)
        told[address] = ports
        kept += socks
    print(json.dumps(told), flush=True)
    sys.stdin.read()


main()
