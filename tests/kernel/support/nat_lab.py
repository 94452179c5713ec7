# SPDX-License-Identifier: BSD-2-Clause
"""A client, a router that translates addresses, and a server, each in a network namespace."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness import in_netns, listener
from router_chain import chain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from two_containers import Place

PUBLISHED = 7000  # the router's port that is the server's
# Connect ``count`` times to (host, port), exchange some bytes; leave the local ports.
CLIENT = """
def talk(host, port, count, mapped=False, held=False):
    ports = []
    for _ in range(count):
        sock = socket.socket(socket.AF_INET6 if ":" in host or mapped else socket.AF_INET)
        sock.connect(("::ffff:" + host if mapped else host, port))
        ports.append(sock.getsockname()[1])
        sock.sendall(b"question")
        assert sock.recv(64) == b"question"
        kept.append(sock) if held else sock.close()
    return ports
kept = []
"""


def translate(
    router: Place, family: int, server: str, port: int, *, dnat: bool, snat: bool
) -> None:
    """Translate destinations, the router's PUBLISHED port to the server, or sources, or both."""
    table = f"{'ip' if family == 4 else 'ip6'} lab"
    to = f"{server}:{port}" if family == 4 else f"[{server}]:{port}"
    rules = [f"add table {table}"]
    if dnat:
        rules += [
            f"add chain {table} pre {{ type nat hook prerouting priority -100; }}",
            f"add rule {table} pre tcp dport {PUBLISHED} dnat to {to}",
        ]
    if snat:
        rules += [
            f"add chain {table} post {{ type nat hook postrouting priority 100; }}",
            f"add rule {table} post masquerade",
        ]
    in_netns(router.netns, "nft", "; ".join(rules))


class NatLab:
    """Places, and where the client connects to."""

    def __init__(self, places: list[Place], host: str, port: int, server_port: int) -> None:
        self.client, self.router, self.server = places
        self.host, self.port, self.server_port = host, port, server_port


@contextmanager
def nat_lab(family: int, *, dnat: bool, snat: bool) -> Iterator[NatLab]:
    """Yield a lab with an echo server."""
    with chain(1) as places:
        _, router, server = places
        address = server.address(family)
        with listener(netns=server.netns, address=address) as port:
            translate(router, family, address, port, dnat=dnat, snat=snat)
            host = router.address(family) if dnat else address
            yield NatLab(places, host, PUBLISHED if dnat else port, port)


def talk(place: Place, *arguments: Any, **how: Any) -> list[int]:
    """Run ``talk`` of CLIENT in a place; return the local ports."""
    with place.remote() as remote:
        remote.do(f"exec({CLIENT!r}, globals())")
        return list(remote.get(f"talk(*{arguments!r}, **{how!r})"))
