# SPDX-License-Identifier: BSD-2-Clause
"""Keys of counting: the option ``--by``, and the settings of the kernel side."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from cgnet.errors import UsageError, did_you_mean
from cgnet.records._layouts import COUNT_KEY, CountBy, CountConfig, Flow, Owner, OwnerSource
from cgnet.text import is_number, number

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

MAX_PREFIX = 128
# The fields of the other end that its address tells.
PEER_FIELDS = ("peer", "peer_container", "peer_pod", "peer_cgroup", "peer_source")
DEEPEST = 4096  # linux/limits.h: PATH_MAX


class Key(NamedTuple):
    """A key of ``--by``."""

    name: str
    size: int | None = None  # of a prefix in bits, or of a path in components

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that show it.

        Containers of different pods may share a name; owners in no container are shown by cgroup.
        """
        if self.name == "peer":
            return PEER_FIELDS
        if self.name == "container":
            return ("container", "pod", "pod_namespace", "cgroup")
        return ("pod", "pod_namespace") if self.name == "pod" else (self.name,)


# Names, and the parts of the kernel's key that they need.
KEYS: dict[str, CountBy] = {
    "container": CountBy.BY_CGROUP,
    "pod": CountBy.BY_CGROUP,
    "unit": CountBy.BY_CGROUP,
    "cgroup": CountBy.BY_CGROUP,
    "selected": CountBy.BY_SELECTED,
    "pid": CountBy.BY_PID,
    "comm": CountBy.BY_COMM,
    "uid": CountBy.BY_UID,
    "netns": CountBy.BY_NETNS,
    "saddr": CountBy.BY_SADDR,
    "daddr": CountBy.BY_DADDR,
    "sport": CountBy.BY_SPORT,
    "dport": CountBy.BY_DPORT,
    "peer": CountBy.BY_DADDR,  # user space names the address
    "role": CountBy.BY_ROLE,
    "result": CountBy.BY_RESULT,
    "reason": CountBy.BY_REASON,
    "location": CountBy.BY_LOCATION,
    "stack": CountBy.BY_STACK,
    "stage": CountBy.BY_STAGE,
    "state": CountBy.BY_RESULT,  # counted in user space
    "cause": CountBy.BY_CAUSE,
    "dropped_here": CountBy.BY_DROPPED,
}
OF_DROPS = ("reason", "location", "stack")
OF_SOCKETS = tuple(
    name
    for name in KEYS
    if name not in {"peer", "result", "stage", "state", "cause", "dropped_here", *OF_DROPS}
)
OF_ENDS = (*OF_SOCKETS, "peer")
OF_CONNECTIONS = (*OF_ENDS, "result")
OF_LISTINGS = (*OF_ENDS, "state")
OF_RESENDS = (*OF_ENDS, "cause", "dropped_here")
SIZED = {"cgroup": "DEPTH", "saddr": "BITS", "daddr": "BITS"}


def _key(text: str, usable: Collection[str]) -> Key:
    name, slash, size = text.partition("/")
    known = ", ".join(f"{each}[/{SIZED[each]}]" if each in SIZED else each for each in usable)
    if name not in usable:
        near = did_you_mean(name, usable)
        raise UsageError(f"--by {text!r}: nothing to count by{near}; one of: {known}")
    if not slash:
        return Key(name)
    if name not in SIZED or not is_number(size):
        raise UsageError(f"--by {text!r}: no number goes there; as in cgroup/2 or daddr/24")
    if name == "cgroup":  # a path has no more components than bytes
        found = number(size, DEEPEST)
        return Key(name, DEEPEST if found is None else found)
    bits = number(size, MAX_PREFIX)
    if bits is None:
        raise UsageError(f"--by {text!r}: no prefix is longer than {MAX_PREFIX} bits")
    return Key(name, bits)


def read_by(values: Iterable[str], usable: Collection[str] = OF_CONNECTIONS) -> list[Key]:
    """Parse the values of ``--by``, lists separated by commas. Raises UsageError.

    ``usable`` has the names of the keys that the command supports.
    """
    keys = [_key(text.strip(), usable) for value in values for text in value.split(",")]
    for name, times in Counter(key.name for key in keys).items():
        if times > 1:
            raise UsageError(f"--by: {name} comes {times} times; once is enough")
    return keys


def count_config(keys: list[Key], *, by_peer: bool = False) -> CountConfig:
    """Return the constants of counting by these keys; ``by_peer``: by whole remote addresses, too."""
    bits = CountBy.BY_DADDR if by_peer else 0
    for key in keys:
        bits |= KEYS[key.name]
    sizes = {key.name: MAX_PREFIX if key.size is None else key.size for key in keys}
    if by_peer:
        sizes.pop("daddr", None)
    return CountConfig(
        enabled=1,
        by=bits,
        saddr_bits=sizes.get("saddr", MAX_PREFIX),
        daddr_bits=sizes.get("daddr", MAX_PREFIX),
    )


def _network(address: bytes, bits: int) -> bytes:
    """Clear all but the first bits of an address."""
    whole = 8 * len(address)
    mask = (1 << whole) - (1 << max(whole - bits, 0))
    return (int.from_bytes(address, "big") & mask).to_bytes(len(address), "big")


def _owner_in_key(by: int, owner: Owner) -> Owner:
    kept = Owner(
        hierarchy=owner.hierarchy,
        undecided=owner.undecided,
        cgroup_id=owner.cgroup_id if by & CountBy.BY_CGROUP or owner.undecided else 0,
        given=owner.given if by & CountBy.BY_SELECTED else 0,
        pid=owner.pid if by & CountBy.BY_PID else 0,
        uid=owner.uid if by & CountBy.BY_UID else 0,
        comm=owner.comm if by & CountBy.BY_COMM else b"",
    )
    if owner.source == OwnerSource.OWNER_UNKNOWN:
        return kept
    partial = owner.source >= OwnerSource.OWNER_SK_CGRP
    source = OwnerSource.OWNER_SK_CGRP if partial else OwnerSource.OWNER_LEARNED
    return kept._replace(source=source)


def kernel_key(config: CountConfig, owner: Owner, flow: Flow, role: int, result: int) -> bytes:
    """Return struct count_key as the kernel side makes it: see count/count.bpf.h."""
    by = config.by
    kept = Flow(
        saddr=_network(flow.saddr, config.saddr_bits) if by & CountBy.BY_SADDR else b"",
        daddr=_network(flow.daddr, config.daddr_bits) if by & CountBy.BY_DADDR else b"",
        netns=flow.netns if by & CountBy.BY_NETNS else 0,
        dport=flow.dport if by & CountBy.BY_DPORT else 0,
        family=flow.family if by & (CountBy.BY_SADDR | CountBy.BY_DADDR) else 0,
        sport=flow.sport if by & CountBy.BY_SPORT else 0,
    )
    side = role if by & CountBy.BY_ROLE else 0
    return COUNT_KEY.packed.pack(*_owner_in_key(by, owner), *kept, side, result, 0)
