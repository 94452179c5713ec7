# SPDX-License-Identifier: BSD-2-Clause
"""``--peer`` and ``--names``: other ends of connections by name."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cgnet.errors import UsageError
from cgnet.filters import values
from cgnet.filters.names import MIN_ID
from cgnet.filters.values import choose

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cgnet.filters.values import Network
    from cgnet.owners.peers import Peer

GLOB = frozenset("*?[")
MAX_BYTES = 16 << 20


class AddressNames:
    """Names that the user gave to addresses and networks; the longest prefix decides."""

    def __init__(self, networks: dict[Network, str]) -> None:
        """Take the names by network."""
        self._networks = sorted(networks.items(), key=lambda item: -item[0].prefixlen)
        self.name = lru_cache(maxsize=8192)(self._name)

    def _name(self, address: str) -> str | None:
        found = ip_address(address)
        return next((name for network, name in self._networks if found in network), None)


def read_names(path: Path) -> AddressNames:
    """Read lines of an address or a network, and a name. Raises UsageError."""
    networks: dict[Network, str] = {}
    try:
        with path.open(encoding="utf-8", errors="backslashreplace") as file:
            lines = file.read(MAX_BYTES).splitlines()
    except OSError as error:
        raise UsageError(f"--names {str(path)!r}: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split(maxsplit=1)
        if not words:
            continue
        try:
            (network,) = values.network(words[0])
        except ValueError as error:
            raise UsageError(f"--names {str(path)!r}: line {number}: {error}") from None
        if len(words) < 2:
            raise UsageError(f"--names {str(path)!r}: line {number}: {words[0]} has no name")
        networks.setdefault(network, words[1].strip())
    return AddressNames(networks)


def _name(text: str) -> Iterator[str]:
    if not text:
        raise ValueError("no name")
    yield text


class PeerFilter:
    """The values of ``--peer``."""

    def __init__(self, given: Iterable[str]) -> None:
        """Check the values. Raises UsageError."""
        self._choice = choose("--peer", given, _name)

    @property
    def use(self) -> int:
        """The bits of enum filter_use."""
        return self._choice.use

    def matches(self, *ends: Peer) -> bool:
        """Return whether a row with this other end, or with either of two ends, is wanted.

        An end without a name matches nothing.
        """
        if any(_is(end, each) for end in ends for each in self._choice.excludes):
            return False
        included = self._choice.includes
        return not included or any(_is(end, each) for end in ends for each in included)


def _is(peer: Peer, wanted: str) -> bool:
    names = [name for name in (peer.name, peer.container, peer.pod) if name]
    if GLOB & set(wanted):
        return any(fnmatchcase(name, wanted) for name in names)
    ids = peer.container_id or ""
    return wanted in names or (len(wanted) >= MIN_ID and ids.startswith(wanted))
