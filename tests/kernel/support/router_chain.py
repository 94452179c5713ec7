# SPDX-License-Identifier: BSD-2-Clause
"""A chain of namespaces without containers: a client, routers, and a server.

client: e0, 10.x.1.2 --- 10.x.1.1, w0: router: e0, 10.x.2.2 --- 10.x.2.1, w0: server
"""

from __future__ import annotations

import uuid
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from harness import in_netns, ip, new_netns
from two_containers import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY_HOOK = ("prerouting", "input", "forward", "output", "postrouting")
# linux/ethtool.h and linux/sockios.h: offloads of a device, set without ethtool.
OFFLOADS = {"tso": 0x1F, "gso": 0x24, "gro": 0x2C}
SET_OFFLOAD = """
import array, fcntl, struct
def set_offload(dev, command, value):
    said = array.array("B", struct.pack("II", command, value))
    request = struct.pack("16sP", dev.encode(), said.buffer_info()[0]).ljust(40, bytes(1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8946, request)
"""


def set_offload(place: Place, device: str, **values: bool) -> None:
    """Turn ``tso``, ``gso`` or ``gro`` of a device on or off."""
    with place.remote() as remote:
        remote.do(f"exec({SET_OFFLOAD!r}, globals())")
        for name, value in values.items():
            remote.do(f"set_offload({device!r}, {OFFLOADS[name]}, {int(value)})")


@contextmanager
def chain(routers: int) -> Iterator[list[Place]]:
    """Yield the places from the client to the server, with routes to each other."""
    number = uuid.uuid4().int % 250 + 1
    with ExitStack() as cleanup:
        places = [Place(cleanup.enter_context(new_netns())) for _ in range(routers + 2)]
        for i, (one, other) in enumerate(pairwise(places), 1):
            peer = ("peer", "name", "w0", "netns", other.netns)
            ip("link", "add", "e0", "netns", one.netns, "type", "veth", *peer)
            other.add_device("w0", f"{number}.{i}.1")
            one.add_device("e0", f"{number}.{i}.2")
            _introduce(one, "e0", other, "w0")
            _introduce(other, "w0", one, "e0")
        for i, place in enumerate(places):
            for name in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
                place.sysctl(f"net.{name}", 1)
            _routes(place, number, i, len(places) - 1)
        yield places


def _introduce(place: Place, mine: str, other: Place, theirs: str) -> None:
    """Add a permanent neighbour entry: packets needn't wait for an answer."""
    hardware = other.hardware(theirs)
    for address in other.addresses_of(theirs):
        where = (address, "lladdr", hardware, "dev", mine, "nud", "permanent")
        ip("-n", place.netns, "neigh", "replace", *where)


def _routes(place: Place, number: int, i: int, last: int) -> None:
    """Add routes to networks 1 to ``last``; the place is between ``i`` and ``i + 1``."""
    for network in range(1, last + 1):
        if network in (i, i + 1):
            continue
        for family, start in ((4, f"10.{number}."), (6, f"fd77:{number}:")):
            rest, length = (".0", 24) if family == 4 else ("::", 64)
            gate = f"{i + 1}.1" if network > i else f"{i}.2"
            gate = gate if family == 4 else gate.replace(".", "::")
            to = f"{start}{network}{rest}/{length}"
            ip("-n", place.netns, f"-{family}", "route", "add", to, "via", f"{start}{gate}")


@contextmanager
def rules_everywhere(places: list[Place]) -> Iterator[None]:
    """Add a rule to each hook of each place, which lets everything pass."""
    chains = "; ".join(
        f"add chain inet every {hook} {{ type filter hook {hook} priority 0; }}; "
        f"add rule inet every {hook} counter"
        for hook in EVERY_HOOK
    )
    for place in places:
        in_netns(place.netns, "nft", f"add table inet every; {chains}")
    yield  # the rules end with their namespaces
