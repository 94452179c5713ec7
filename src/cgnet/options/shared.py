# SPDX-License-Identifier: BSD-2-Clause
"""Decorators that add the shared options, and functions that read their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from cgnet.counting.counts import Counting
from cgnet.counting.histograms import MICROSECONDS, linear
from cgnet.counting.keys import OF_CONNECTIONS, read_by
from cgnet.errors import UsageError
from cgnet.filters.peer_names import read_names
from cgnet.filters.selection import Selection
from cgnet.filters.values import choose, roles
from cgnet.options.groups import (
    CONNECTIONS,
    COUNT,
    DEFAULT_BY,
    DISTRIBUTION,
    DROPS,
    EITHER_END,
    ENDS,
    EVERYWHERE,
    FAR_END,
    FLOWS,
    FORCED,
    HIST,
    LISTING,
    LIVING,
    OTHERS,
    OWNERS,
    PACKETS,
    RESENDS,
    RING,
    ROLE,
    RUN,
    SHOW,
    SUMMARY,
)
from cgnet.owners.peers import PEER_FIELDS
from cgnet.records._layouts import Role
from cgnet.records.conn_id import PUBLIC_KEY
from cgnet.run.command import Options
from cgnet.run.far_ends import PeerOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cgnet.counting.keys import Key

F = TypeVar("F", bound="Callable[..., Any]")


def _add(options: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def common(function: F) -> F:
    """Add the options that every command has; ``collect`` reads their values."""
    return _add((*OWNERS, *FLOWS, *OTHERS, *SHOW, *RUN))(function)


def common_of_packets(function: F) -> F:
    """Add the same options for packets' addresses and ports, source first."""
    return _add((*OWNERS, *PACKETS, *OTHERS, *SHOW, *RUN))(function)


def connections(function: F) -> F:
    """Add the options of commands about connections."""
    return _add(CONNECTIONS)(function)


def role(function: F) -> F:
    """Add the option of commands that show both sides of connections."""
    return _add(ROLE)(function)


def counting(function: F) -> F:
    """Add the options of commands that count; ``counted`` reads their values."""
    return _add(COUNT)(function)


def counting_drops(function: F) -> F:
    """Add the options of commands that count drops; ``counted`` reads their values."""
    return _add(DROPS)(function)


def counting_resends(function: F) -> F:
    """Add the options of commands that count resends; ``counted`` reads their values."""
    return _add(RESENDS)(function)


def far_end(function: F) -> F:
    """Add the options of commands that tell connections apart by both ends."""
    return _add(FAR_END)(function)


def histogram(function: F) -> F:
    """Add the options of commands with optional histograms; ``distributed`` reads their values."""
    return _add(HIST)(function)


def distribution(function: F) -> F:
    """Add the options of commands that make histograms; ``distributed`` reads their values."""
    return _add(DISTRIBUTION)(function)


def summary(function: F) -> F:
    """Add the options of commands that summarize."""
    return _add(SUMMARY)(function)


def living(function: F) -> F:
    """Add the option of commands that show open connections."""
    return _add(LIVING)(function)


def listing(function: F) -> F:
    """Add the options of a command that lists what is there now; ``collect`` reads their values."""
    return _add((*LISTING, *OWNERS, *FLOWS, *OTHERS, *SHOW, *ENDS, *EVERYWHERE))(function)


def watching(function: F) -> F:
    """Add the options of a command that watches everything; ``collect`` reads their values."""
    shown = (*SHOW, *ENDS, *RING[:1], *EVERYWHERE, *FORCED)
    return _add((*OWNERS, *FLOWS, *OTHERS, *EITHER_END, *shown))(function)


def _roles(values: dict[str, Any], *, both: bool) -> frozenset[Role]:
    """Return the roles to trace, by default clients. Raises UsageError if none is left."""
    everybody = {Role.ROLE_CLIENT, Role.ROLE_SERVER}
    chosen = choose("--role", values["role"], roles)
    if both or chosen.use:
        base = everybody
    else:
        base = {Role.ROLE_SERVER if values["inbound"] else Role.ROLE_CLIENT}
    if values["inbound"] and not both:
        base = {Role.ROLE_SERVER}
    wanted = base & chosen.chosen(everybody)
    if not wanted:
        raise UsageError("--role: with the other options no connection is left")
    return frozenset(wanted)


def keys_of(
    values: dict[str, Any], default: str, usable: Collection[str] = OF_CONNECTIONS
) -> list[Key]:
    """Return the keys to count by. Raises UsageError."""
    given = values["by"] or ([default] if default else [])
    keys = read_by(given, usable)
    if any(key.name == "selected" for key in keys) and not values["cgroup"]:
        raise UsageError("--by selected: counts by the --cgroup given, and there is none")
    return keys


def need(option: str, values: dict[str, Any], names: tuple[str, ...]) -> None:
    """Raise UsageError for a value that requires ``option``."""
    for name in names:
        if values[name]:
            raise UsageError(f"--{name}: goes with {option}")


def counted(
    values: dict[str, Any], default: str = DEFAULT_BY, usable: Collection[str] = OF_CONNECTIONS
) -> Counting | None:
    """Return the settings of counting, or None for a row for each event. Raises UsageError."""
    if values["count"] or values["interval"]:
        return Counting(keys_of(values, default, usable))
    need("--count", values, ("by",))
    return None


def distributed(
    values: dict[str, Any], *, wanted: bool, instead: str, usable: Collection[str] = OF_CONNECTIONS
) -> Counting | None:
    """Return the settings of histograms, or None for rows. Raises UsageError.

    ``instead`` names the option that makes histograms, for the error message.
    """
    if wanted:
        scale = linear(values["linear"]) if values["linear"] else MICROSECONDS
        return Counting(keys_of(values, "", usable), scale)
    need(instead, values, ("by", "interval", "linear"))
    return None


def _peers(values: dict[str, Any]) -> PeerOptions | None:
    """Return how other ends are named; None if nobody asks for them. Raises UsageError."""
    fields = {*(values["fields"] or ())} & {*PEER_FIELDS}
    keys = {name.strip() for text in values["by"] or () for name in text.split(",")}
    if not (values["peers"] or values["peer"] or values["names"] or fields or "peer" in keys):
        return None
    return PeerOptions(values["peer"], read_names(values["names"]) if values["names"] else None)


def collect(
    values: dict[str, Any],
    counting: Counting | None = None,
    *,
    both_roles: bool = False,
) -> Options:
    """Return the options of a command from its parameters. Raises UsageError.

    ``both_roles``: trace clients' and servers' connections unless --role chooses.
    """
    absent: dict[str, Any] = {
        "role": (),
        "inbound": False,
        "both": False,
        "result": (),
        "interval": None,
        "buffer": 0,
        "max_rate": None,
        "hook": None,
        "transport": None,
        "conn_key": None,
        "peers": False,
        "peer": (),
        "names": None,
        "by": (),
    }
    values = absent | values
    values["conn_key"] = values["conn_key"] or PUBLIC_KEY
    values["peers"] = _peers(values)
    if counting and values["peers"]:
        by_peer = bool(values["peer"]) or any(key.name == "peer" for key in counting.keys)
        counting = counting._replace(by_peer=by_peer)
    names = set(Selection._fields) - {"families", "roles"}
    selection = Selection(
        families=frozenset(number for number in (4, 6) if values[f"ipv{number}"]),
        roles=_roles(values, both=both_roles or values["both"]),
        **{name: values[name] for name in names},
    )
    names = set(Options._fields) - {"selection", "counting"}
    return Options(
        selection=selection,
        counting=counting,
        **{name: values[name] for name in names},
    )
