# SPDX-License-Identifier: BSD-2-Clause
"""What records of each signal have in common: the keys and sums of their tallies."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cgnet.findings.rules.base import LIMITED
from cgnet.findings.rules.servers import LIFE_NS, MIN_TURNS
from cgnet.findings.tally import Tally
from cgnet.records._layouts import (
    CONNECT_EVENT,
    DROP_EVENT,
    LIFE_EVENT,
    RETRANS_EVENT,
    AttemptResult,
    Layout,
    Role,
)
from cgnet.records.schema import CGROUP_PART

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.records.schema import Schema

OK = int(AttemptResult.RESULT_OK).to_bytes(2, sys.byteorder, signed=True)
# What tells a destination apart, and a service: the server's own port.
REMOTE = CONNECT_EVENT.slice("flow.daddr", "mapped")
REMOTE_ADDRESS = CONNECT_EVENT.slice("flow.daddr", "netns")
NETNS = CONNECT_EVENT.slice("flow.netns")
SPORT = CONNECT_EVENT.slice("flow.sport")
DPORT = CONNECT_EVENT.slice("flow.dport")
TCP_ACK, TCP_SYN = 0x10, 0x02


def _slices(layout: Layout, member: str, *names: str) -> dict[str, slice]:
    return {name: layout.slice(f"{member}.{name}") for name in names}


def _service(raw: bytes, role_at: int) -> bytes:
    """Return the bytes of a connection's destination; of an accepted one, of its service.

    Where the role isn't known, the lower port is the service's.
    """
    role = raw[role_at] or (Role.ROLE_SERVER if _number(raw[SPORT]) < _number(raw[DPORT]) else 0)
    return raw[NETNS] + raw[SPORT] if role == Role.ROLE_SERVER else raw[REMOTE]


def _number(part: bytes) -> int:
    return int.from_bytes(part, sys.byteorder)


def _attempt() -> Callable[[bytes], bytes]:
    role_at = CONNECT_EVENT.slice("outcome.role").start
    result, decision = (
        CONNECT_EVENT.slice("outcome.result"),
        CONNECT_EVENT.slice("outcome.result", "role"),
    )

    def key(raw: bytes) -> bytes:
        if raw[result] == OK and raw[role_at] != Role.ROLE_SERVER:
            where = raw[REMOTE_ADDRESS] + raw[DPORT]
        else:
            where = _service(raw, role_at)
        return raw[CGROUP_PART] + where + raw[decision]

    return key


def _drop() -> Callable[[bytes], bytes]:
    flags_at = DROP_EVENT.slice("drop.tcp_flags").start
    where = DROP_EVENT.slice("drop.location", "ifindex")
    marks = DROP_EVENT.slice("drop.tcp_state", "drop_class")
    source, destination = DROP_EVENT.slice("flow.saddr"), DROP_EVENT.slice("flow.daddr")

    def key(raw: bytes) -> bytes:
        flags = raw[flags_at] & (TCP_SYN | TCP_ACK)
        ends = raw[source] + raw[destination]
        port = raw[SPORT] if flags == TCP_SYN | TCP_ACK else raw[DPORT]
        if flags & TCP_SYN == 0:  # of a connection: either port may be the service's
            port = min(raw[SPORT], raw[DPORT], key=_number)
        place = raw[CGROUP_PART] + raw[NETNS] + raw[where]
        return place + ends + port + raw[marks] + bytes([flags])

    return key


def _resend() -> Callable[[bytes], bytes]:
    role_at = RETRANS_EVENT.slice("retrans.role").start
    cause = RETRANS_EVENT.slice("retrans.cause")

    def key(raw: bytes) -> bytes:
        where = raw[REMOTE] if raw[role_at] else raw[REMOTE] + raw[SPORT]
        if raw[role_at] == Role.ROLE_SERVER:
            where = raw[REMOTE_ADDRESS] + raw[SPORT]
        return raw[CGROUP_PART] + where + raw[cause]

    return key


def _end() -> Callable[[bytes], bytes]:
    role_at = LIFE_EVENT.slice("life.role").start
    marks = LIFE_EVENT.slice("life.rst_reason", "close_cause")

    def key(raw: bytes) -> bytes:
        return raw[CGROUP_PART] + _service(raw, role_at) + raw[marks]

    return key


_TURNS = LIFE_EVENT.slice("life.turns")
_MEAN_TURN = LIFE_EVENT.slice("life.mean_turn_us")
_DURATION = LIFE_EVENT.slice("life.duration_ns")
_CLOSED_BY = LIFE_EVENT.slice("life.closed_by").start


def _waits(raw: bytes) -> bool:
    """Return whether a client waited for its server a good part of a connection, again and again.

    It did on one connection, or on a short one of several. A long poll is neither. How long those
    lasted that were open before the start isn't known.
    """
    turns, took_us = _number(raw[_TURNS]), _number(raw[_MEAN_TURN])
    if not turns:
        return False
    duration_ns = _number(raw[_DURATION])
    short = raw[_CLOSED_BY] and 0 < duration_ns <= LIFE_NS
    return (turns >= MIN_TURNS or bool(short)) and turns * took_us * 1000 >= LIMITED * duration_ns


def _turns() -> dict[str, Callable[[bytes], int]]:
    """Return the measures of servers' turns, on connections whose clients wait."""
    return {
        "thinking": _waits,
        "thinking_turns": lambda raw: _number(raw[_TURNS]) if _waits(raw) else 0,
        "thinking_ns": lambda raw: _number(raw[_DURATION]) if _waits(raw) else 0,
        "thinking_before": lambda raw: _waits(raw) and not _number(raw[_DURATION]),
        "think_us": lambda raw: (
            _number(raw[_TURNS]) * _number(raw[_MEAN_TURN]) if _waits(raw) else 0
        ),
    }


def tally_of(name: str, schema: Schema) -> Tally:
    """Return the tally of a signal's records, which ``schema`` decodes."""
    if name == "connect":
        numbers = _slices(CONNECT_EVENT, "outcome", "latency_ns", "syn_retrans")
        return Tally(schema, _attempt(), numbers, SPORT)
    if name == "drop":
        numbers = _slices(DROP_EVENT, "drop", "payload", "new_data")
        return Tally(schema, _drop(), numbers, DROP_EVENT.slice("drop.seq"))
    if name == "retrans":
        numbers = _slices(RETRANS_EVENT, "retrans", "segs", "len", "attempt", "rto_us")
        return Tally(schema, _resend(), numbers, RETRANS_EVENT.slice("retrans.seq"))
    numbers = _slices(
        LIFE_EVENT, "life", "duration_ns", "tx_bytes", "rx_bytes", "tx_segs", "rx_segs", "retrans",
        "tx_bytes_delta", "busy_ticks", "rwnd_ticks", "sndbuf_ticks", "dsack_dups", "reordering",
        "greatest_turn_us",
    )  # fmt: skip
    return Tally(schema, _end(), numbers, SPORT, _turns())
