# SPDX-License-Identifier: BSD-2-Clause
"""The fields of a record that name the other end of its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cgnet.owners.record_fields import OWNER_FIELDS, owner_group
from cgnet.records._layouts import IDENTITY, PACKET_END
from cgnet.records.fields import FieldGroup
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
SOURCE, REMOTE = (ADDRESSES.fields.index(name) for name in ("saddr", "daddr"))
KNOWN_PART, IS_SOURCE_PART = PACKET_END.slice("known"), PACKET_END.slice("is_source")
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
        *,
        of_packets: bool = False,
    ) -> None:
        """``named`` returns the name that the user gave to an address.

        ``of_packets``: addresses are a packet's, and an end's key is struct packet_end.
        """
        self._of_packets = of_packets
        self._ends, self._addresses, self._named = ends, addresses, named
        self._owner = owner_group(names, runtimes).values

    def of(self, key: bytes, addresses: bytes) -> Peer:
        """Return the other end, from the end's key and the bytes of ADDRESSES."""
        if (
            owner := self._ends.other(key[: IDENTITY.size] if self._of_packets else key)
        ) is not None:
            return self._of_socket(owner)
        remote = self._remote(key, addresses)
        return self.at(remote) if remote else NOBODY

    def _remote(self, key: bytes, addresses: bytes) -> str | None:
        """Return the address of the other end; None if there is none, or the end isn't known."""
        remote = REMOTE
        if self._of_packets:
            if not any(key[KNOWN_PART]):
                return None
            remote = REMOTE if any(key[IS_SOURCE_PART]) else SOURCE
        found: str = ADDRESSES.values(addresses)[remote]
        return None if found in NOWHERE else found

    def at(self, remote: str, began: float | None = None) -> Peer:
        """Return the other end that an address alone tells; ``began``: since that monotonic time."""
        owners = self._addresses
        row = owners.of(remote) if began is None else owners.throughout(remote, began)
        if row:
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

    def group(self, key: slice) -> FieldGroup:
        """Return the group of the fields; ``key`` is the part of a record that is the end's key."""
        size = key.stop - key.start

        def values(part: bytes) -> tuple[Any, ...]:
            addresses = part[size:]
            found = self.of(part[:size], addresses)
            name = found.name or self._remote(part[:size], addresses)
            shown = (found.container, found.pod, found.cgroup, found.pid, found.comm, found.source)
            return (name, *shown)

        more = (ADDRESSES.part, *ADDRESSES.more)
        return FieldGroup(PEER_FIELDS, key, values, repeats=False, more=more)
