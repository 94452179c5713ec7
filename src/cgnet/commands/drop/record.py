# SPDX-License-Identifier: BSD-2-Clause
"""A dropped packet: the reason, the place, and the packet's own fields."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.findings.drop_reasons import class_name
from cgnet.records._layouts import DROP_EVENT, Drop
from cgnet.records.fields import FieldGroup, NumberField
from cgnet.records.packet import direction, flags_text
from cgnet.records.schema import ROLES, tcp_state_name
from cgnet.text import decode

if TYPE_CHECKING:
    from cgnet.kernel.symbols import Symbols
    from cgnet.records.fields import AnyField

START = DROP_EVENT.slice("drop").start
# All but the packet's own numbers: most drops come from few places.
BEFORE = DROP_EVENT.slice("drop.location", "ifindex")
MARKS = DROP_EVENT.slice("drop.tcp_flags", "frames")
BEHIND = slice(DROP_EVENT.slice("drop.role").start, DROP_EVENT.size)
STACK = DROP_EVENT.part("stack")


class Place(NamedTuple):
    """The common fields of drops from one place."""

    drop: Drop  # its own numbers are 0
    stack: tuple[str, ...]
    location: str


def _place(symbols: Symbols, part: bytes) -> Place:
    """Decode the bytes of BEFORE, MARKS and BEHIND."""
    whole = bytearray(DROP_EVENT.size)
    at = 0
    for each in (BEFORE, MARKS, BEHIND):
        size = each.stop - each.start
        whole[each] = part[at : at + size]
        at += size
    drop = Drop.unpack(whole, START)
    stack = symbols.frames(STACK.unpack_from(whole, DROP_EVENT.slice("stack").start)[: drop.frames])
    known = drop.location or not stack
    return Place(drop, stack, symbols.code(drop.location) if known else stack[0])


def _fault(symbols: Symbols, part: bytes) -> tuple[Any, ...]:
    drop, stack, where = _place(symbols, part)
    return (
        ROLES.get(drop.role), tcp_state_name(drop.tcp_state) if drop.tcp_state else None,
        symbols.drop_reason(drop.reason), class_name(drop.drop_class), where, list(stack),
        flags_text(drop.tcp_flags),
    )  # fmt: skip


def _device(symbols: Symbols, part: bytes) -> tuple[Any, ...]:
    drop, stack, where = _place(symbols, part)
    name = decode(drop.dev.partition(b"\0")[0]) or None
    return name, drop.ifindex or None, direction(stack or (where,), sent=bool(drop.sent))


def drop_groups(symbols: Symbols) -> list[AnyField]:
    """Return the groups of a drop's own fields."""
    fault = ("role", "tcp_state", "reason", "reason_class", "location", "stack", "tcp_flags")
    device = ("dev", "ifindex", "direction")
    more = (MARKS, BEHIND)
    return [
        FieldGroup(fault, BEFORE, partial(_fault, symbols), repeats=True, more=more),
        *(
            NumberField(name, DROP_EVENT.slice(f"drop.{name}"))
            for name in ("seq", "len", "payload")
        ),
        FieldGroup(device, BEFORE, partial(_device, symbols), repeats=True, more=more),
    ]
