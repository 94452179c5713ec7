# SPDX-License-Identifier: BSD-2-Clause
"""The fields of a record that name the other end of its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cgnet.owners.record_fields import OWNER_FIELDS, owner_group
from cgnet.records.fields import Group
from cgnet.records.schema import ADDRESSES

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.owners.address_owners import AddressOwners
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes

PEER_FIELDS = (
    "peer", "peer_container", "peer_pod", "peer_cgroup", "peer_pid", "peer_comm", "peer_source",
)  # fmt: skip
SOCKET, ADDRESS, NAMES = "socket", "address", "names"
SOURCES = (SOCKET, ADDRESS, NAMES)
REMOTE = ADDRESSES.fields.index("daddr")
NOWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - the remote address of a listener


class Ends(Protocol):
    """Knows the owners of other ends."""

    def other(self, key: bytes) -> bytes | None:
        """Return struct owner of the other end, by an end's key; None if it isn't known."""


class Peer(NamedTuple):
    """The other end. ``name`` is the container with its pod, or the cgroup, or that of --names."""

    source: str | None = None
    name: str | None = None
    container: str | None = None
    container_id: str | None = None
    pod: str | None = None
    cgroup: str | None = None
    pid: int | None = None
    comm: str | None = None


NOBODY = Peer()


def container_name(container: str | None, pod: str | None) -> str | None:
    """Return a container's name, with its pod: pods may share container names."""
    return f"{pod}/{container}" if container and pod else container


class Peers:
    """Finds the other end of a connection: by its socket, else by its address, else by --names."""

    def __init__(
        self,
        ends: Ends,
        addresses: AddressOwners,
        named: Callable[[str], str | None],
        names: CgroupNames,
        runtimes: Runtimes,
    ) -> None:
        """``named`` returns the name that the user gave to an address."""
        self._ends, self._addresses, self._named = ends, addresses, named
        self._owner = owner_group(names, runtimes).values

    def of(self, key: bytes, addresses: bytes) -> Peer:
        """Return the other end, from the end's key and the bytes of ADDRESSES."""
        if (owner := self._ends.other(key)) is not None:
            return self._of_socket(owner)
        return self.at(ADDRESSES.values(addresses)[REMOTE])

    def at(self, remote: str) -> Peer:
        """Return the other end that an address alone tells."""
        if row := self._addresses.of(remote):
            container, pod = row["container"], row["pod"]
            name = container_name(container, pod) or row["cgroup"]
            return Peer(ADDRESS, name, container, row["container_id"], pod, row["cgroup"])
        if name := self._named(remote):
            return Peer(NAMES, name)
        return NOBODY

    def _of_socket(self, owner: bytes) -> Peer:
        row = dict(zip(OWNER_FIELDS, self._owner(owner), strict=True))
        container, pod = row["container"], row["pod"]
        return Peer(
            SOCKET, container_name(container, pod) or row["cgroup"], container,
            row["container_id"], pod, row["cgroup"], row["pid"], row["comm"],
        )  # fmt: skip

    def group(self, key: slice) -> Group:
        """Return the group of the fields; ``key`` is the part of a record that is the end's key."""
        size = key.stop - key.start

        def values(part: bytes) -> tuple[Any, ...]:
            addresses = part[size:]
            found = self.of(part[:size], addresses)
            remote = ADDRESSES.values(addresses)[REMOTE]
            name = found.name or (None if remote in NOWHERE else remote)
            shown = (found.container, found.pod, found.cgroup, found.pid, found.comm, found.source)
            return (name, *shown)

        more = (ADDRESSES.part, *ADDRESSES.more)
        return Group(PEER_FIELDS, key, values, repeats=False, more=more)
