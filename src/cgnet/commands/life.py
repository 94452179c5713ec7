# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet life``: each TCP connection's life: how long, how much, who ended it and how."""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from cgnet.commands import COMMANDS
from cgnet.commands.sockets.before import KnowsOpenEnds
from cgnet.filters.values import as_bits
from cgnet.kernel.symbols import Symbols
from cgnet.kernel.ticks import ticks_a_second
from cgnet.kernel.variants import LIVING, SOCKETS
from cgnet.options import completion
from cgnet.options.groups import select
from cgnet.options.shared import collect, common, far_end, living, role
from cgnet.options.types import Span
from cgnet.owners import socket_queries
from cgnet.owners.record_fields import owner_group
from cgnet.records._layouts import (
    FLOW,
    LIFE,
    LIFE_EVENT,
    CloseCause,
    ClosedBy,
    LifeConfig,
    Role,
    SessionSignal,
)
from cgnet.records.conn_id import conn_id_field
from cgnet.records.fields import FieldGroup, NumberField
from cgnet.records.schema import FLOW_GROUPS, NSEC_PER_USEC, ROLES, USEC_PER_SEC, tcp_state_name
from cgnet.run.command import remarks_on_roles
from cgnet.run.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cgnet.kernel.variants import Job, Variant
    from cgnet.loader import Object
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records._layouts import Packable
    from cgnet.records.fields import AnyField
    from cgnet.run.command import Options

CLOSERS = {each: each.name.removeprefix("CLOSED_BY_").lower() for each in ClosedBy}
CAUSES = {each: each.name.removeprefix("CLOSE_").lower() for each in CloseCause}
# The ways to end are few; durations aren't.
MARKS_PART = LIFE_EVENT.slice("life.rst_reason", "close_cause")
CLOSED_BY_PART = LIFE_EVENT.slice("life.closed_by")
DURATION_PART = LIFE_EVENT.slice("life.duration_ns")
_MARKS = LIFE.part("rst_reason", "close_cause")
LIMITS = ("busy_us", "rwnd_limited_us", "sndbuf_limited_us")
LIMITS_PART = LIFE_EVENT.slice("life.busy_ticks", "sndbuf_ticks")
_LIMITS = LIFE.part("busy_ticks", "sndbuf_ticks")
UNKNOWN = 2**32 - 1
# Of a server's turns.
TURNS = ("ttfb_us", "ttfb_min_us", "ttfb_max_us", "turns")
TURNS_PART = LIFE_EVENT.slice("life.turns", "greatest_turn_us")
_TURNS = LIFE.part("turns", "greatest_turn_us")
UNASKED = (None, None, None, None)


SYMBOLS = Symbols()


def _side(marks: bytes) -> tuple[Any, ...]:
    _, state, side, _, _ = _MARKS.unpack(marks)
    return ROLES.get(side), tcp_state_name(state)


def _end(symbols: Symbols, marks: bytes) -> tuple[Any, ...]:
    reason, _, _, by, cause = _MARKS.unpack(marks)
    named = symbols.rst_reason(reason - 1) if reason else None
    return CLOSERS.get(by), CAUSES.get(cause), named, not by


def us_per_tick() -> int:
    """Return the period of the kernel's tick, truncated, as TCP_INFO has it."""
    return USEC_PER_SEC // ticks_a_second()


def _limits(tick_us: int, limits: bytes) -> tuple[Any, ...]:
    busy, rwnd, sndbuf = _LIMITS.unpack(limits)
    if busy == UNKNOWN:
        return None, None, None
    return (busy + rwnd + sndbuf) * tick_us, rwnd * tick_us, sndbuf * tick_us


def _turns(asked: bool, taken: bytes) -> tuple[Any, ...]:  # noqa: FBT001 - by partial()
    count, mean, least, greatest = _TURNS.unpack(taken[: _TURNS.size])
    _, _, role, _, _ = _MARKS.unpack(taken[_TURNS.size :])
    if not asked or role != Role.ROLE_SERVER:
        return UNASKED
    return (mean, least, greatest, count) if count else (None, None, None, 0)


def _number(field: str, member: str = "", per: int = 1, null: int | None = None) -> NumberField:
    return NumberField(field, LIFE_EVENT.slice(f"life.{member or field}"), per, null)


# By map, or "" for files: the program that emits open connections.
OPEN_BY_MAP = {
    "ledger": "living",
    "ledger_slots": "living_slots",
    "ledger_hash": "living",
    "": "living_files",
}


def records_in(part: bytes) -> list[bytes]:
    """Return the records of an iterator's output."""
    return [part[at : at + LIFE_EVENT.size] for at in range(0, len(part), LIFE_EVENT.size)]


def _numbers(names: Mapping[Any, str]) -> dict[str, int]:
    return {name: value for value, name in names.items()}


def _was_open_before(raw: bytes) -> bool:
    """Return whether a connection is open, and was before the start."""
    return not raw[CLOSED_BY_PART.start] and not any(raw[DURATION_PART])


def _with(columns: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    at = columns.index("duration_us") + 1
    return (*columns[:at], *more, *columns[at:])


class Life(KnowsOpenEnds):
    """Lives of connections, as they end; with an interval also open connections."""

    name = object = "life"
    signals: int = SessionSignal.SIGNAL_LIFE
    jobs = (*SOCKETS, LIVING)
    layouts = (LIFE_EVENT, FLOW, LIFE)
    identity = LIFE_EVENT.slice("identity")
    role = LIFE_EVENT.slice("life.role")
    tells_ends = False
    table: tuple[str, ...] = (
        "time", "owner", "pid", "comm", "role", "saddr", "sport", "daddr", "dport", "duration_us",
        "tx_bytes", "rx_bytes", "retrans", "closed_by", "close_cause",
    )  # fmt: skip
    wide: tuple[str, ...] = (
        "time", "owner", "pid", "uid", "comm", "role", "family", "saddr", "sport", "daddr", "dport",
        "duration_us", "handshake_us", "tx_bytes", "rx_bytes", "tx_segs", "rx_segs", "retrans",
        "srtt_us", "min_rtt_us", "delivery_rate", "busy_us", "rwnd_limited_us", "sndbuf_limited_us",
        "reordering", "dsack_dups", "tcp_state", "closed_by", "close_cause", "rst_reason", "netns",
        "owner_source", "cgroup",
    )  # fmt: skip
    first: tuple[str, ...] = ("owner", "daddr", "dport", "tx_bytes", "rx_bytes", "close_cause")
    then: tuple[str, ...] = (
        "duration_us",
        "time",
        "role",
        "closed_by",
        "comm",
        "retrans",
        "sport",
        "pid",
        "saddr",
    )

    def __init__(
        self, options: Options | None = None, *, symbols: Symbols = SYMBOLS, min_ns: int = 0,
        min_bytes: int = 0, closed_by: tuple[str, ...] = (), causes: tuple[str, ...] = (),
        open_by: str | None = None, ttfb: bool = False,
    ) -> None:  # fmt: skip
        """Show lives of at least ``min_ns`` and ``min_bytes``, by ``closed_by`` and ``causes``.

        ``open_by`` is the variant of LIVING that must show open connections. ``ttfb``: measure the
        turns of servers.
        """
        self._ttfb = ttfb
        if ttfb:
            self.signals |= SessionSignal.SIGNAL_TURNS
            self.table = _with(self.table, ("ttfb_us", "ttfb_max_us"))
            self.wide = _with(self.wide, TURNS)
            self.then = ("ttfb_us", "ttfb_max_us", *self.then)
        self._options, self._symbols, self._open_by = options, symbols, open_by
        self._has_looked = False  # at open connections
        self._config = LifeConfig(
            min_ns=min_ns,
            min_bytes=min_bytes,
            by_closed=as_bits("--closed-by", closed_by, _numbers(CLOSERS)),
            by_cause=as_bits("--close-cause", causes, _numbers(CAUSES)),
        )

    def fields(self, names: CgroupNames, runtimes: Runtimes) -> list[AnyField]:
        """Return the groups of a record's fields, in order."""
        end = ("closed_by", "close_cause", "rst_reason", "open")
        return [
            owner_group(names, runtimes),
            *FLOW_GROUPS,
            FieldGroup(("role", "tcp_state"), MARKS_PART, _side, repeats=True),
            _number("duration_us", "duration_ns", NSEC_PER_USEC, null=0),
            _number("handshake_us", "handshake_ns", NSEC_PER_USEC, null=0),
            *map(_number, ("tx_bytes", "rx_bytes", "tx_segs", "rx_segs", "retrans")),
            _number("srtt_us", null=0),
            _number("min_rtt_us", null=UNKNOWN),
            FieldGroup(
                TURNS, TURNS_PART, partial(_turns, self._ttfb), repeats=False, more=(MARKS_PART,)
            ),
            FieldGroup(LIMITS, LIMITS_PART, partial(_limits, us_per_tick()), repeats=True),
            _number("delivery_rate", null=0),
            _number("reordering"),
            _number("dsack_dups", null=UNKNOWN),
            FieldGroup(end, MARKS_PART, partial(_end, self._symbols), repeats=True),
            *map(_number, ("tx_bytes_delta", "rx_bytes_delta", "retrans_delta")),
            conn_id_field(self.identity, self.conn_key),
        ]

    def config(self, _chosen: list[Variant]) -> list[Packable]:
        """Return the constants that select lives."""
        return [self._config]

    def needed(self) -> list[Job]:
        """Return the jobs; open connections are shown with an interval."""
        if not self._options or not self._options.interval:
            return list(SOCKETS)
        return [*SOCKETS, LIVING.only(self._open_by) if self._open_by else LIVING]

    def left_out(self) -> frozenset[str]:
        """Return the program that measures turns, where nobody asks for them."""
        return frozenset() if self._ttfb else frozenset({"turns"})

    def remarks(self) -> list[str]:
        """Return a remark if one role is excluded."""
        return remarks_on_roles(self._options)

    def on_interval(self, obj: Object) -> Iterator[list[bytes]]:
        """Yield the records of open connections, in batches.

        The first call sets the baseline of the deltas, and omits connections from before the start.
        """
        is_first, self._has_looked = not self._has_looked, True
        for batch in self._open_connections(obj):
            yield [raw for raw in batch if not (is_first and _was_open_before(raw))]

    def _open_connections(self, obj: Object) -> Iterator[list[bytes]]:
        """Have iterators tell them, over each map that has some; without, query each socket."""
        tried = (obj.iterator(program, name) for name, program in OPEN_BY_MAP.items())
        if loaded := [each for each in tried if each is not None]:
            return map(records_in, chain.from_iterable(loaded))
        if not socket_queries.can_ask(obj):
            return iter(())
        ring = obj.ring("ring")
        return (ring.consume() for _ in socket_queries.tell_open(obj))

    def is_end(self, raw: bytes) -> bool:
        """Return whether the connection has ended."""
        return bool(raw[CLOSED_BY_PART.start])


COMMAND = Life()


EPILOG = """\b
Examples:
  cgnet life                                    a row for each connection that ends
  cgnet life --container web --close-cause rst  a container's connections that a reset ended
  cgnet life --closed-by kernel                 time-outs, and what somebody killed
  cgnet life --min-duration 10s --min-bytes 1000000
  cgnet life --container web --peers            and who is at the other end of each
  cgnet life --role server --ttfb               and how long servers take to answer
  cgnet life -i 5                               also what is open, every five seconds

Repeats of an option are OR, different options are AND; a value that begins with ! excludes.

\b
CLOSED says who ended it: local, peer, or the kernel. CAUSE is fin, rst, timeout, or abort when
it was killed from outside, as by ss -K. Bytes are payload: sent and acknowledged, and received.
"""


@click.command(name="life", help=COMMANDS["life"].help, epilog=EPILOG)
@click.option(
    "--min-duration",
    type=Span(takes_seconds=True),
    help="Only connections that lasted at least this long, as in 10s.",
)
@click.option(
    "--min-bytes",
    type=click.IntRange(0, 2**63 - 1),
    metavar="N",
    help="Only connections that carried at least N bytes, both ways together.",
)
@select(
    "closed-by", "WHO", f"Ended by: {', '.join(CLOSERS.values())}.",
    completion.listed(list(CLOSERS.values())),
)  # fmt: skip
@select(
    "close-cause", "HOW", f"Ended how: {', '.join(CAUSES.values())}.",
    completion.listed(list(CAUSES.values())),
)  # fmt: skip
@click.option(
    "--ttfb",
    is_flag=True,
    help="Also measure how long servers think: from the last byte of a request to the first byte of "
    "the answer. A program runs at each segment that an established connection receives.",
)
@click.option("--open-by", type=click.Choice([each.name for each in LIVING.variants]), hidden=True)
@living
@role
@far_end
@common
def command(
    *,
    open_by: str | None,
    min_duration: int | None,
    min_bytes: int | None,
    closed_by: tuple[str, ...],
    close_cause: tuple[str, ...],
    ttfb: bool,
    **values: Any,
) -> int:
    """Run the command."""
    options = collect(values, both_roles=True)
    made = Life(
        options, symbols=Symbols(options.btf), min_ns=min_duration or 0, min_bytes=min_bytes or 0,
        closed_by=closed_by, causes=close_cause, open_by=open_by,
        ttfb=ttfb or not {*TURNS}.isdisjoint(options.fields or ()),
    )  # fmt: skip
    return Session(made, options).run()
