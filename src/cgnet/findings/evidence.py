# SPDX-License-Identifier: BSD-2-Clause
"""Evidence of a network namespace or a cgroup: counters, settings, queues.

A source that can't be read gives None, and advice doesn't mention it.
"""

from __future__ import annotations

import ipaddress
import json
import shlex
import shutil
import struct
import subprocess
import sys
from contextlib import suppress
from errno import errorcode
from fcntl import ioctl
from itertools import chain
from pathlib import Path
from socket import AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DGRAM, socket
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cgnet.findings.tcp_memory import Limit, directory, limit_hit
from cgnet.kernel.program_stats import programs_of_cgroup
from cgnet.owners.netns import NAMED, OWN, inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
COUNTERS = ("snmp", "netstat")
TIME_WAIT, LISTEN = 6, 10  # include/net/tcp_states.h
LISTENING = 1 << LISTEN  # of TCP states, for inet_diag
LEGACY_TABLES = ("ip_tables_names", "ip6_tables_names")  # of iptables before nftables: /proc/net
SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"  # root runs no programs from elsewhere
MAX_CGROUPS = 64  # of a namespace, that are examined
SIOCGIFFLAGS = 0x8913  # include/uapi/linux/sockios.h
RUNNING = 0x41  # include/uapi/linux/if.h: IFF_UP, IFF_RUNNING
DISCARD = 9  # a port
REJECTS = 0x200  # include/uapi/linux/route.h: RTF_REJECT
NFT_S = 10  # the time limit of nft
DROPPING = ("drop", "reject", "queue", "xt")  # "xt": of iptables, opaque to nft


class Queue(NamedTuple):
    """A listener: its address, and how many connections wait for accept() and may wait."""

    address: str
    port: int
    length: int
    limit: int


class Socket(NamedTuple):
    """A socket of a connection: its own address and port, and those of its peer."""

    address: str
    port: int
    peer: str
    peer_port: int


class Place(NamedTuple):
    """A network namespace's name for people, and a prefix for commands to run there."""

    name: str
    enter: str  # "" for cgnet's own


def place_of(netns: int, path: Path | None) -> Place:
    """Return the name and prefix of a namespace; ``path`` is a file of it, if there is one."""
    if path is None:
        return Place(f"network namespace {netns}, which is gone", "")
    if netns == OWN.stat().st_ino:
        return Place("cgnet's own network namespace", "")
    if path.parent == NAMED:
        return Place(f"network namespace {path.name}", f"ip netns exec {shlex.quote(path.name)} ")
    return Place(f"network namespace {netns}", f"nsenter --net={shlex.quote(str(path))} ")


def namespaces(proc: Path = PROC, named: Path = NAMED) -> dict[int, Path]:
    """Return a file of each network namespace that a process or a name refers to, by inode."""
    found: dict[int, Path] = {}
    for place in (*named.glob("*"), *proc.glob("[0-9]*/ns/net")):
        with suppress(OSError):
            found.setdefault(place.stat().st_ino, place)
    return found


def _end(text: str) -> tuple[str, int]:
    """Parse "0100007F:1F90", an address of 4 or 16 bytes and a port, as in /proc/net/tcp."""
    words, _, port = text.partition(":")
    raw = b"".join(
        int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8)
    )
    address = ipaddress.ip_address(raw)
    return str(getattr(address, "ipv4_mapped", None) or address), int(port, 16)


def parse_sockets(text: str, port: int) -> Iterator[Socket]:
    """Yield the sockets of /proc/net/tcp or tcp6 at a local port that have a peer.

    Listeners have no peer; sockets in TIME_WAIT don't count.
    """
    for line in text.splitlines():
        if f":{port:04X} " not in line:
            continue
        _, local, remote, state = line.split()[:4]
        if local.endswith(f":{port:04X}") and int(state, 16) not in (TIME_WAIT, LISTEN):
            yield Socket(*_end(local), *_end(remote))


def _sockets(port: int) -> list[Socket]:
    found: list[Socket] = []
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            found += parse_sockets((PROC / "thread-self/net" / name).read_text(), port)
    return found


def living_in(netns: int, proc: Path = PROC) -> Iterator[int]:
    """Yield some processes of a network namespace, one for each set of cgroups."""
    seen: set[str] = set()
    for place in proc.glob("[0-9]*/ns/net"):
        with suppress(OSError):
            if place.stat().st_ino != netns:
                continue
            cgroups = (place.parents[1] / "cgroup").read_text()
            if cgroups not in seen and len(seen) < MAX_CGROUPS:
                seen.add(cgroups)
                yield int(place.parents[1].name)


def parse_counters(text: str) -> Iterator[tuple[str, int]]:
    """Yield the counters of /proc/net/snmp or netstat: "TcpExtListenDrops" and its value."""
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        group, _, rest = names.partition(":")
        for name, value in zip(rest.split(), values.partition(":")[2].split(), strict=False):
            yield group + name, int(value)


def parse_conntrack(text: str) -> Iterator[tuple[str, int]]:
    """Yield "conntrack_drop" etc. of /proc/net/stat/nf_conntrack, summed over the CPUs."""
    names, *lines = [line.split() for line in text.splitlines()] or [[]]
    for name, *values in zip(names, *lines, strict=False):
        yield f"conntrack_{name}", sum(int(value, 16) for value in values)


def _counters() -> dict[str, int]:
    found: dict[str, int] = {}
    for name in COUNTERS:
        found.update(parse_counters((PROC / "thread-self/net" / name).read_text()))
    with suppress(OSError):  # missing without IPv6
        for line in (PROC / "thread-self/net/snmp6").read_text().splitlines():
            name, value = line.split()
            found[name] = int(value)
    with suppress(
        OSError
    ):  # kernels without connection tracking, or without CONFIG_NF_CONNTRACK_PROCFS
        text = (PROC / "thread-self/net/stat/nf_conntrack").read_text()
        found.update(parse_conntrack(text))
    return found


def counters(place: Path) -> dict[str, int] | None:
    """Return the counters of a namespace; None if they can't be read."""
    return inside(place, _counters)


def sysctl(place: Path, name: str) -> str | None:
    """Return a setting of a namespace, such as "net/ipv4/tcp_rmem"; None if it can't be read."""
    text = inside(place, (PROC / "sys" / name).read_text)
    return None if text is None else " ".join(text.split())


def _queues() -> list[Queue]:
    from pyroute2 import DiagSocket  # noqa: PLC0415 - an extra; only if used

    with DiagSocket() as sock:
        return [
            Queue(
                each["idiag_src"], each["idiag_sport"], each["idiag_rqueue"], each["idiag_wqueue"]
            )
            for family in (AF_INET, AF_INET6)
            for each in sock.get_sock_stats(family=family, states=LISTENING, protocol=IPPROTO_TCP)
        ]


def _qdiscs(device: str) -> list[dict[str, Any]]:
    from pyroute2 import IPRoute  # noqa: PLC0415 - an extra; only if used

    with IPRoute() as route:
        index = next(iter(route.link_lookup(ifname=device)), 0)
        found = []
        for each in route.get_qdiscs(index=index) if index else ():
            stats = each.get_nested("TCA_STATS2", "TCA_STATS_QUEUE") or {}
            queue = {key: stats[key] for key in ("drops", "overlimits", "backlog") if key in stats}
            found.append({"kind": each.get_attr("TCA_KIND"), **queue})
        return found


def _called(expressions: list[Any]) -> Iterator[str]:
    """Yield the chains that an nftables rule jumps to; "*" for any chain of its table."""
    for each in expressions:
        for verb in ("jump", "goto"):
            if isinstance(each, dict) and isinstance(each.get(verb), dict):
                yield each[verb].get("target", "")
        if isinstance(each, dict) and "vmap" in each:  # a chain for each value
            yield "*"


def dropping_hooks(ruleset: list[dict[str, Any]]) -> dict[str, int]:
    """Return the number of rules that may drop packets, including called chains, by hook.

    ``ruleset`` is nft's JSON output. A drop policy counts as a rule.
    """
    rules: dict[tuple[str, str, str], list[list[Any]]] = {}
    for each in ruleset:
        if "rule" in each:
            rule = each["rule"]
            key = rule["family"], rule["table"], rule["chain"]
            rules.setdefault(key, []).append(rule.get("expr", []))
    found: dict[str, int] = {}
    for base in (each["chain"] for each in ruleset if "hook" in each.get("chain", ())):
        table = base["family"], base["table"]
        waiting, seen, count = [base["name"]], set(), int(base.get("policy") == "drop")
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            for expressions in rules.get((*table, name), ()):
                kinds = set(chain.from_iterable(e for e in expressions if isinstance(e, dict)))
                count += bool(kinds.intersection(DROPPING))
                waiting += _called(expressions)
            if name == "*":
                waiting += [other for *of, other in rules if tuple(of) == table]
        if count:
            found[base["hook"]] = found.get(base["hook"], 0) + count
    return found


def _dropping_hooks() -> dict[str, int] | None:
    nft = shutil.which("nft", path=SYSTEM_PATH)
    if not nft:
        return None
    done = subprocess.run(  # noqa: S603 - of the system, and without an argument of others
        [nft, "-j", "-t", "list", "ruleset"], capture_output=True, timeout=NFT_S, check=True
    )
    return dropping_hooks(json.loads(done.stdout)["nftables"])


def _rules() -> dict[str, int] | None:
    """Return dropping_hooks() of this namespace; None if some of its rules aren't visible."""
    for name in LEGACY_TABLES:
        with suppress(FileNotFoundError):
            if (PROC / "thread-self/net" / name).read_text().split():
                return None
    with suppress(subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return _dropping_hooks()
    return None


def rules(place: Path) -> dict[str, int] | None:
    """Return the number of rules that may drop packets, by hook; None if unknown."""
    return inside(place, _rules)


def _routes(address: str) -> bool:
    wanted = ipaddress.ip_address(address)
    if wanted.version == 4:
        rows = (PROC / "thread-self/net/route").read_text().splitlines()[1:]
        for line in rows:
            device, network, _, flags, *_, mask = line.split()[:8]
            given = int.from_bytes(wanted.packed, sys.byteorder)
            if given & int(mask, 16) == int(network, 16) and not int(flags, 16) & REJECTS:
                return device != "*"
        return False
    for line in (PROC / "thread-self/net/ipv6_route").read_text().splitlines():
        network, length, *_, flags, _ = line.split()
        there = ipaddress.ip_network((bytes.fromhex(network), int(length, 16)))
        if wanted in there and not int(flags, 16) & REJECTS:
            return True
    return False


def _addresses() -> frozenset[str]:
    found = set()
    last = ""
    for line in (PROC / "thread-self/net/fib_trie").read_text().splitlines():
        if "|-- " in line:
            last = line.rpartition(" ")[2]
        elif line.strip() == "/32 host LOCAL":
            found.add(last)
    with suppress(OSError):  # missing without IPv6
        for line in (PROC / "thread-self/net/if_inet6").read_text().splitlines():
            found.add(str(ipaddress.ip_address(bytes.fromhex(line.split()[0]))))
    return frozenset(found)


def addresses(place: Path) -> frozenset[str]:
    """Return the addresses of a namespace's devices; none if they can't be read."""
    return inside(place, _addresses) or frozenset()


def has_route(place: Path, address: str) -> bool | None:
    """Return whether a namespace has a route to an address, by its main table; None if unknown."""
    return inside(place, lambda: _routes(address))


def _route_error(address: str) -> str:
    family = AF_INET6 if ":" in address else AF_INET
    with socket(family, SOCK_DGRAM) as sock:
        try:
            sock.connect((address, DISCARD))  # looks for a route, and sends nothing
        except OSError as error:
            return errorcode.get(error.errno or 0, "")
    return ""


def route_error(place: Path, address: str) -> str | None:
    """Return the error that the routes and rules of a namespace give for an address; "": none."""
    return inside(place, lambda: _route_error(address))


def _is_running(device: str) -> bool:
    with socket(AF_INET, SOCK_DGRAM) as sock:
        asked = struct.pack("16sH22x", device.encode(), 0)
        flags: int = struct.unpack_from("16xH", ioctl(sock, SIOCGIFFLAGS, asked))[0]
    return flags & RUNNING == RUNNING


def is_running(place: Path, device: str) -> bool | None:
    """Return whether a device and its link are up; None if there is no such device."""
    return inside(place, lambda: _is_running(device))


def has_netlink() -> bool:
    """Return whether pyroute2, which reads queues, is installed."""
    try:
        import pyroute2  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


def queues(place: Path) -> list[Queue] | None:
    """Return the listeners of a namespace; None if they can't be read."""
    return inside(place, _queues) if has_netlink() else None


def qdiscs(place: Path, device: str) -> list[dict[str, Any]] | None:
    """Return a device's queueing disciplines: kind, drops, overlimits, backlog."""
    return inside(place, lambda: _qdiscs(device)) if has_netlink() else None


def throttling(cgroup: str, top: Path = CGROUPS) -> dict[str, int] | None:
    """Return a cgroup's nr_periods and nr_throttled since its creation; None if unknown."""
    for hierarchy in ("cpu", "cpu,cpuacct", "unified", ""):
        with suppress(OSError, ValueError):
            text = (top / hierarchy / cgroup.lstrip("/") / "cpu.stat").read_text()
            stats = dict(line.split() for line in text.splitlines())
            if "nr_throttled" in stats:
                return {key: int(stats[key]) for key in ("nr_periods", "nr_throttled")}
    return None


class Look:
    """The sources of one print of advice; each is read at most once."""

    def __init__(
        self,
        places: dict[int, Path],
        start: dict[int, dict[str, int]],
        last: dict[int, dict[str, int]] | None = None,
    ) -> None:
        """``start`` has the first counters by namespace inode; a missing namespace began at zero.

        ``last`` has those of the last print, and is updated in place.
        """
        self.places = places
        self._start = start
        self._last = dict(start) if last is None else last
        self._before = dict(self._last)
        self._known: dict[tuple[Any, ...], Any] = {}

    def _once(self, key: tuple[Any, ...], read: Callable[[], T]) -> T:
        if key not in self._known:
            self._known[key] = read()
        return self._known[key]  # type: ignore[no-any-return]

    def grown(self, netns: int, names: tuple[str, ...]) -> dict[str, int]:
        """Return by how much a namespace's counters have grown; missing counters are left out."""
        return self._since(self._start, netns, names)

    def grown_lately(self, netns: int, names: tuple[str, ...]) -> dict[str, int]:
        """Return by how much they have grown since the last print of advice."""
        return self._since(self._before, netns, names)

    def _since(
        self, start: dict[int, dict[str, int]], netns: int, names: tuple[str, ...]
    ) -> dict[str, int]:
        place = self.places.get(netns)
        if not place:
            return {}
        now = self._once(("counters", netns), lambda: counters(place)) or {}
        self._last[netns] = now
        before = start.get(netns, {})
        return {name: now[name] - before.get(name, 0) for name in names if name in now}

    def sockets(self, netns: int, port: int) -> list[Socket]:
        """Return the sockets of a namespace that have a local port and a peer."""
        place = self.places.get(netns)
        if not place:
            return []
        key = ("sockets", netns, port)
        return self._once(key, lambda: inside(place, lambda: _sockets(port)) or [])

    def rules(self, netns: int) -> dict[str, int] | None:
        """Return the number of a namespace's rules that may drop packets, by hook."""
        place = self.places.get(netns)
        return self._once(("rules", netns), lambda: rules(place)) if place else None

    def addresses(self, netns: int) -> frozenset[str]:
        """Return a namespace's own addresses."""
        place = self.places.get(netns)
        return self._once(("addresses", netns), lambda: addresses(place)) if place else frozenset()

    def has_route(self, netns: int, address: str) -> bool | None:
        """Return whether a namespace has a route to an address."""
        place = self.places.get(netns)
        if not place:
            return None
        return self._once(("route", netns, address), lambda: has_route(place, address))

    def route_error(self, netns: int, address: str) -> str | None:
        """Return the error that a namespace's routes give for an address; "" if there is none."""
        place = self.places.get(netns)
        if not place:
            return None
        key = ("route error", netns, address)
        return self._once(key, lambda: route_error(place, address))

    def is_running(self, netns: int, device: str) -> bool | None:
        """Return whether a device of a namespace, and its link, are up."""
        place = self.places.get(netns)
        if not place:
            return None
        return self._once(("running", netns, device), lambda: is_running(place, device))

    def is_there(self, netns: int) -> bool:
        """Return whether a process or a name refers to a namespace: else only its packets are left."""
        return netns in self.places

    def place(self, netns: int) -> Place:
        """Return a namespace's name, and a prefix for commands to run there."""
        return place_of(netns, self.places.get(netns))

    def sysctl(self, netns: int, name: str) -> str | None:
        """Return a setting of a namespace."""
        place = self.places.get(netns)
        return self._once(("sysctl", netns, name), lambda: sysctl(place, name)) if place else None

    def queues(self, netns: int) -> list[Queue] | None:
        """Return the listeners of a namespace."""
        place = self.places.get(netns)
        return self._once(("queues", netns), lambda: queues(place)) if place else None

    def qdiscs(self, netns: int, device: str) -> list[dict[str, Any]] | None:
        """Return a device's queueing disciplines."""
        place = self.places.get(netns)
        key = ("qdiscs", netns, device)
        return self._once(key, lambda: qdiscs(place, device)) if place else None

    def programs(
        self, pid: int | None, cgroup: str | None, kind: int
    ) -> tuple[Path, dict[int, str]] | None:
        """Return the owner's v2 cgroup and its BPF programs, by id; see programs_of_cgroup()."""
        place = self._once(("v2", pid, cgroup), lambda: directory("v2", pid, cgroup))
        if not place:
            return None
        found = self._once(("bpf", place, kind), lambda: programs_of_cgroup(place, kind))
        return None if found is None else (place, found)

    def memory(self, netns: int, pid: int | None, cgroup: str | None) -> Limit | None:
        """Return the limit of TCP memory that was hit.

        If neither process nor cgroup is known, processes of the namespace are examined, unless it
        is cgnet's own.
        """
        if pid or cgroup or netns == OWN.stat().st_ino:
            return self._once(("memory", pid, cgroup), lambda: limit_hit(pid, cgroup))
        return self._once(
            ("memory", netns), lambda: next(filter(None, map(limit_hit, living_in(netns))), None)
        )

    def throttling(self, cgroup: str) -> dict[str, int] | None:
        """Return how often a cgroup was throttled."""
        return self._once(("cpu", cgroup), lambda: throttling(cgroup))
