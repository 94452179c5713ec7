# SPDX-License-Identifier: BSD-2-Clause
"""Two containers with a router between them, for drops of many kinds.

    client: c0, 10.x.1.2 -- 10.x.1.1, to_client: router: to_server, 10.x.2.1 -- 10.x.2.2, s0: server

The router is a namespace and no container. All have IPv6, too, with the same last parts of
addresses.
"""

from __future__ import annotations

import json
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from harness import in_netns, ip, new_netns, unique
from remote_python import RemotePython, in_own_cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from podman import Podman

ANY = {4: "0.0.0.0", 6: "::"}


class Place:
    """A namespace; a container if it has a name."""

    def __init__(self, netns: str, container: str = "", pid: int = 0) -> None:
        self.netns = netns  # a name of ip-netns(8)
        self.container = container
        self.pid = pid
        self.path = Path("/run/netns") / netns
        self.inode = self.path.stat().st_ino
        self.devices: list[str] = []
        self._addresses: dict[int, str] = {}

    def add_device(self, name: str, network: str) -> None:
        """Give addresses to a device; ``network``, such as "77.1.2", is in 10/8 and fd77::/16."""
        high, low, host = network.split(".")
        self._addresses.setdefault(4, f"10.{high}.{low}.{host}")
        self._addresses.setdefault(6, f"fd77:{high}:{low}::{host}")
        ip("-n", self.netns, "addr", "add", f"10.{high}.{low}.{host}/24", "dev", name)
        ip("-n", self.netns, "addr", "add", f"fd77:{high}:{low}::{host}/64", "dev", name, "nodad")
        ip("-n", self.netns, "link", "set", name, "up")
        ip("-n", self.netns, "link", "set", "lo", "up")
        self.devices.append(name)

    def address(self, family: int) -> str:
        """Return the first device's address."""
        return self._addresses[family]

    def hardware(self, device: str) -> str:
        """Return a device's MAC address."""
        return str(
            json.loads(ip("-j", "-n", self.netns, "link", "show", "dev", device))[0]["address"]
        )

    def addresses_of(self, device: str) -> list[str]:
        """Return all addresses of a device."""
        found = json.loads(ip("-j", "-n", self.netns, "addr", "show", "dev", device))
        return [each["local"] for line in found for each in line["addr_info"]]

    def remote(self) -> RemotePython:
        """Return a process in this namespace and in the container's cgroups."""
        return RemotePython(self.path, in_own_cgroups(self.pid) if self.pid else ())

    def run(self, *command: str) -> str:
        """Run a command here; return its output."""
        return in_netns(self.netns, *command)

    def sysctl(self, name: str, value: object) -> None:
        in_netns(self.netns, "sysctl", "-qw", f"{name}={value}")

    @contextmanager
    def set(self, name: str, value: object) -> Iterator[None]:
        """Change a sysctl, and restore it at the end."""
        before = in_netns(self.netns, "sysctl", "-n", name).strip()
        self.sysctl(name, value)
        try:
            yield
        finally:
            self.sysctl(name, before)

    @contextmanager
    def firewall(self, hook: str, rule: str, family: str = "inet") -> Iterator[None]:
        """Add an nftables rule to a hook; ``family`` is that of the table."""
        table = unique("t").replace("-", "_")
        text = (
            f"add table {family} {table}; "
            f"add chain {family} {table} c {{ type filter hook {hook} priority 0; }}; "
            f"add rule {family} {table} c {rule}"
        )
        in_netns(self.netns, "nft", text)
        try:
            yield
        finally:
            in_netns(self.netns, "nft", f"delete table {family} {table}")

    @contextmanager
    def shaper(
        self, number: int = 0, rate: str = "8kbit", burst: str = "3000", limit: str = "3000"
    ) -> Iterator[None]:
        """Limit the rate of a device: excess packets are dropped."""
        device = self.devices[number]
        base = ("tc", "qdisc")
        shape = ("tbf", "rate", rate, "burst", burst, "limit", limit)
        in_netns(self.netns, *base, "add", "dev", device, "root", *shape)
        try:
            yield
        finally:
            in_netns(self.netns, *base, "del", "dev", device, "root")


def container(podman: Podman, cleanup: ExitStack, *options: str) -> Place:
    """Start a podman container, with a name for its namespace until the end."""
    name = unique()
    podman.run(*options, name=name)
    pid = int(podman.inspect(name, "{{.State.Pid}}"))
    netns = unique("cgt")
    ip("netns", "attach", netns, str(pid))
    cleanup.callback(podman.remove, name)
    cleanup.callback(ip, "netns", "del", netns)
    return Place(netns, name, pid)


class TwoContainers:
    """The client, the server and the router."""

    def __init__(self, podman: Podman) -> None:
        self._podman = podman
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            number = uuid.uuid4().int % 250 + 1  # other runs may have their own networks
            self.client = container(self._podman, cleanup, "--network=none")
            self.server = container(self._podman, cleanup, "--network=none")
            self.router = Place(cleanup.enter_context(new_netns()))
            self._join(self.client, "c0", "to_client", f"{number}.1")
            self._join(self.server, "s0", "to_server", f"{number}.2")
            for name in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
                self.router.sysctl(f"net.{name}", 1)
            for name in ("all", "default", "to_client", "to_server"):
                self.router.sysctl(f"net.ipv4.conf.{name}.rp_filter", 0)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def _join(self, place: Place, device: str, other: str, network: str) -> None:
        peer = ("peer", "name", other, "netns", self.router.netns)
        ip("link", "add", device, "netns", place.netns, "type", "veth", *peer)
        self.router.add_device(other, f"{network}.1")
        place.add_device(device, f"{network}.2")
        high, low = network.split(".")
        ip("-n", place.netns, "route", "add", "default", "via", f"10.{high}.{low}.1")
        ip("-n", place.netns, "-6", "route", "add", "default", "via", f"fd77:{high}:{low}::1")
        self._introduce(place, self.router.devices[-1], self.router)
        self._introduce(self.router, device, place)

    @staticmethod
    def _introduce(place: Place, device: str, other: Place) -> None:
        """Add a permanent neighbour entry: packets needn't wait for an answer."""
        mine = place.devices[0 if place.container else -1]
        hardware = other.hardware(device)
        for address in other.addresses_of(device):
            where = (address, "lladdr", hardware, "dev", mine, "nud", "permanent")
            ip("-n", place.netns, "neigh", "replace", *where)
