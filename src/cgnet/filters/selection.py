# SPDX-License-Identifier: BSD-2-Clause
"""Conversion of the filter options to maps and constants of filter/filter.bpf.h."""

from __future__ import annotations

from functools import reduce
from ipaddress import IPv4Network
from operator import or_
from typing import TYPE_CHECKING, NamedTuple

from cgnet.errors import NotYetKnownError, UsageError
from cgnet.filters import values
from cgnet.filters.cgroup import SELECTED_CGROUPS, CgroupFilter
from cgnet.filters.names import NAMED_CGROUPS, NameFilter
from cgnet.filters.values import Choice, choose
from cgnet.owners import cgroups, netns, processes
from cgnet.records._layouts import (
    CGNET_HIERARCHIES,
    PORT_FLAGS,
    AddressKey,
    FilterConfig,
    FilterUse,
    FlowSide,
    NetnsValue,
    Owner,
    PidValue,
    Role,
    Undecided,
    u32,
)
from cgnet.text import is_number, number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.filters.values import Network
    from cgnet.loader import Object
    from cgnet.owners.cgroups import CgroupNames, Hierarchy
    from cgnet.owners.processes import Facts, Process
    from cgnet.owners.runtimes import Runtimes

LISTENERS = 16384  # entries of each map, if servers are selected
LISTENER_MAPS = ("listeners", "listening")
SIDES = (FlowSide.SIDE_SOURCE, FlowSide.SIDE_DESTINATION, FlowSide.SIDE_EITHER)
# In struct address_key, before the address itself: list and family.
KEY_BITS_BEFORE_ADDRESS = 16


class Selection(NamedTuple):
    """The values of the filter options, as given."""

    cgroup: tuple[str, ...] = ()
    pid: tuple[str, ...] = ()
    comm: tuple[str, ...] = ()
    uid: tuple[str, ...] = ()
    netns: tuple[str, ...] = ()
    saddr: tuple[str, ...] = ()
    daddr: tuple[str, ...] = ()
    addr: tuple[str, ...] = ()
    sport: tuple[str, ...] = ()
    dport: tuple[str, ...] = ()
    port: tuple[str, ...] = ()
    families: frozenset[int] = frozenset()
    result: tuple[str, ...] = ()
    roles: frozenset[Role] = frozenset({Role.ROLE_CLIENT})
    hierarchy: str | None = None
    container: tuple[str, ...] = ()
    pod: tuple[str, ...] = ()
    pod_namespace: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()


def _process(text: str) -> Iterator[Process]:
    if not is_number(text):
        raise ValueError("no number; give the PID of a running process")
    if processes.is_in_namespace():
        raise ValueError(
            "cgnet runs in a PID namespace, in which processes have other PIDs than the programs "
            "see: run it in the host's (docker run --pid=host), or select by --comm or --cgroup"
        )
    pid = number(text, netns.MAX_PID) or 0  # a PID that no process has
    try:
        found = processes.facts(pid)
    except OSError:
        raise ValueError("no such process; give the PID of a running one") from None
    if found.leader != pid:
        raise ValueError(f"a thread of process {found.leader}; give the process's PID")
    yield found.process


def _netns(text: str) -> Iterator[netns.Netns]:
    yield netns.find(text)


def _passes(use: int, matched: int) -> bool:
    """Return whether matched uses pass a filter, as bpf/filter/filter.bpf.h does."""
    if matched & FilterUse.FILTER_EXCLUDES:
        return False
    return not use & FilterUse.FILTER_INCLUDES or bool(matched & FilterUse.FILTER_INCLUDES)


class Filters:
    """All filters of a run. Without any value, everything is selected, and no map is looked up."""

    def __init__(self, selection: Selection | None = None) -> None:
        """Check the values. Raises UsageError if one is malformed or doesn't exist."""
        selection = selection or Selection()
        mounted = cgroups.hierarchies()
        named = selection.hierarchy and cgroups.hierarchy_named(selection.hierarchy, mounted)
        inside = named or cgroups.default_hierarchy(mounted)
        self.cgroups = CgroupFilter(selection.cgroup, mounted, inside)
        self.named = NameFilter(
            selection.container, selection.pod, selection.pod_namespace, selection.unit
        )
        self.hierarchies = self._hierarchies(inside, named=bool(named))
        self.pids = choose("--pid", selection.pid, _process)
        self.comms = choose("--comm", selection.comm, values.comm)
        self.uids = choose("--uid", selection.uid, values.uid)
        self.netns = choose("--netns", selection.netns, _netns)
        self.results = choose("--result", selection.result, values.results)
        self.roles, self.families = selection.roles, selection.families
        self.addresses = [
            choose(f"--{name}", getattr(selection, name), values.network)
            for name in ("saddr", "daddr", "addr")
        ]
        self.ports = [
            choose(f"--{name}", getattr(selection, name), values.ports)
            for name in ("sport", "dport", "port")
        ]

    def _hierarchies(self, inside: Hierarchy, *, named: bool) -> list[Hierarchy]:
        """Return the hierarchies that the programs read; the first one names owners.

        Without --hierarchy, it is that of the first given path, if any. Raises UsageError.
        """
        given = self.cgroups.hierarchies
        naming = inside if named or not given else given[0]
        found = [naming, *(each for each in given if each.id != naming.id)]
        for each in found[1:]:
            if self.cgroups.has_patterns(each.id):
                raise UsageError(
                    f"--cgroup: patterns go with the hierarchy that names owners, {naming.name}; "
                    f"give --hierarchy {each.name}, or directories of {each.name}"
                )
        if len(found) > CGNET_HIERARCHIES:
            raise UsageError(
                f"--cgroup: paths of more than {CGNET_HIERARCHIES} hierarchies in one run"
            )
        return found

    @property
    def _births_undecided(self) -> bool:
        """Whether a new cgroup may match a pattern, or a given path that is created again."""
        return any(each.id == self.hierarchies[0].id for each in self.cgroups.hierarchies)

    @property
    def undecided(self) -> bool:
        """Whether records of new cgroups may be left undecided by the kernel side."""
        return self._births_undecided or bool(self.named.use)

    def decide(
        self, owner: bytes, names: CgroupNames, runtimes: Runtimes, *, finally_: bool = False
    ) -> int | None:
        """Decide about an owner (struct owner) that the kernel side left undecided.

        Return the number of the ``--cgroup`` that selects it (0: selected without one), else None.
        Raises NotYetKnownError if more is expected to be known soon, unless ``finally_`` is set.
        """
        its = Owner.unpack(owner)
        path = names.path(its.hierarchy, its.cgroup_id)
        if its.undecided & Undecided.UNDECIDED_NAME and path is not None:
            known = runtimes.of(path)
            if known.expected and not finally_:
                raise NotYetKnownError(known.until)
            if not self.named.matches(known):
                return None
        by_path = its.undecided & ~Undecided.UNDECIDED_NAME
        return self.cgroups.decide(by_path, its.hierarchy, path) if by_path else its.given

    def wants(self, owner: Facts | None) -> tuple[bool, int]:
        """Return whether an owner is selected, as the programs do, and by which ``--cgroup``.

        Filters by name are applied later.
        """
        filters = (self.cgroups.use, self.pids.use, self.comms.use, self.uids.use)
        if owner is None:
            uses = (*filters, self.named.use)
            return not any(use & FilterUse.FILTER_INCLUDES for use in uses), 0
        marks = [self.cgroups.mark(each.id, path) for each, path in owner.paths]
        matched = (
            reduce(or_, (mark.marks for mark in marks), 0),
            self.pids.uses().get(owner.process, 0),
            self.comms.uses().get(owner.comm, 0),
            self.uids.uses().get(owner.uid, 0),
        )
        given = next((mark.given for mark in marks if mark.given), 0)
        return all(map(_passes, filters, matched)), given

    # -- constants and maps of the programs

    def config(self) -> FilterConfig:
        """Return the constants of the filters."""
        return FilterConfig(
            roles=sum(self.roles),
            family=next(iter(self.families)) if len(self.families) == 1 else 0,
            by_cgroup=self.cgroups.use,
            by_pid=self.pids.use,
            by_comm=self.comms.use,
            by_uid=self.uids.use,
            by_netns=self.netns.use,
            by_name=self.named.use,
            by_result=bool(self.results.use),
            undecided=self._births_undecided,
            by_address=tuple(each.use for each in self.addresses),
            by_port=tuple(each.use for each in self.ports),
            results=values.result_bits(self.results),
        )

    def resize(self, obj: Object) -> None:
        """Before loading: keep the maps of unused filters small."""
        networks = sum(len(each.includes) + len(each.excludes) for each in self.addresses)
        sizes = {
            "selected_cgroups": SELECTED_CGROUPS if self.cgroups.given else 1,
            "selected_pids": len(self.pids.uses()),
            "selected_comms": len(self.comms.uses()),
            "selected_uids": len(self.uids.uses()),
            "selected_netns": len(self.netns.uses()),
            "selected_addresses": networks,
            "named_cgroups": NAMED_CGROUPS if self.named.use else 1,
            **dict.fromkeys(LISTENER_MAPS, LISTENERS if Role.ROLE_SERVER in self.roles else 1),
        }
        for name, size in sizes.items():
            if obj.has_map(name):
                obj.resize(name, max(size, 1))

    def fill(self, obj: Object) -> None:
        """Fill the maps, after attaching the program on cgroup_mkdir and before the others."""
        for process, use in self.pids.uses().items():
            value = PidValue(process.start, use).pack()
            obj.map("selected_pids").update(u32(process.pid), value)
        for comm, use in self.comms.uses().items():
            obj.map("selected_comms").update(comm, u32(use))
        for uid, use in self.uids.uses().items():
            obj.map("selected_uids").update(u32(uid), u32(use))
        for found, use in self.netns.uses().items():
            value = NetnsValue(found.cookie, use).pack()
            obj.map("selected_netns").update(u32(found.inode), value)
        for key in self._address_keys():
            obj.map("selected_addresses").update(key, u32(1))
        if any(each.use for each in self.ports):
            obj.map("selected_ports").update(u32(0), port_flags(self.ports))
        self.cgroups.fill(obj.map("selected_cgroups"))

    def _address_keys(self) -> Iterator[bytes]:
        for side, choice in zip(SIDES, self.addresses, strict=True):
            for excludes, networks in enumerate(choice):
                yield from (address_key(2 * side + excludes, network) for network in networks)


def address_key(group: int, network: Network) -> bytes:
    """Return struct address_key of a network in list ``group``."""
    family = 4 if isinstance(network, IPv4Network) else 6
    packed = network.network_address.packed.ljust(16, b"\0")
    bits = KEY_BITS_BEFORE_ADDRESS + network.prefixlen
    return AddressKey(bits, group, family, packed).pack()


def port_flags(choices: list[Choice[range]]) -> bytes:
    """Return struct port_flags."""
    flags = bytearray(PORT_FLAGS.size)
    for side, choice in zip(SIDES, choices, strict=True):
        for ports, use in choice.uses().items():
            for port in ports:
                flags[port] |= use << 2 * side
    return bytes(flags)
