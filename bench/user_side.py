# SPDX-License-Identifier: BSD-2-Clause
"""Records a second that the Python side decodes and writes, on one core, of each command."""

from __future__ import annotations

import os
import statistics
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

import tracer

from cgnet.commands import connlat, life, rtt
from cgnet.commands.connect import command as connect
from cgnet.commands.drop import command as drop
from cgnet.filters.selection import Filters
from cgnet.kernel.symbols import Symbols
from cgnet.owners.cgroups import CgroupNames, hierarchies
from cgnet.owners.runtimes import Runtimes
from cgnet.records._layouts import (
    DROP,
    DROP_EVENT,
    FLOW,
    HEAD,
    LIFE,
    OUTCOME,
    OWNER,
    RTT_SAMPLE,
    CloseCause,
    ClosedBy,
    DropClass,
    OwnerSource,
    RecordKind,
    Role,
)
from cgnet.records.schema import Clock, Schema
from cgnet.render.json_lines import JsonLines
from cgnet.run.launch import Launch
from cgnet.run.printer import ROWS_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.run.command import Command

RECORDS = 50_000
OWNERS, SERVICES = 200, 500
ROUNDS = 5
FILLED_RING, FILL_SECONDS = 1 << 24, 3.0
PROMISED_DECODED, PROMISED_WRITTEN = 400_000, 150_000
DROPPED_IN = ("tcp_v4_rcv", "tcp_v4_do_rcv", "tcp_rcv_established", "ip_rcv", "tcp_v6_rcv")
STACK = struct.Struct(f"={(DROP_EVENT.size - DROP_EVENT.slice('stack').start) // 8}Q")


class Kind(NamedTuple):
    """A command, and a function that makes the i-th record's own part."""

    command: Command
    record: RecordKind
    tail: Callable[[int], bytes]


def _attempt(i: int) -> bytes:
    role = Role.ROLE_SERVER if i % 2 else Role.ROLE_CLIENT
    return OUTCOME.packed.pack(150_000 + i, 0, 0 if i % 20 else 111, 1, role)


def _sample(i: int) -> bytes:
    role = Role.ROLE_SERVER if i % 2 else Role.ROLE_CLIENT
    return RTT_SAMPLE.packed.pack(20_000 + i * 7 % 9973, 15_000 + i % 5000, 1, role, 0, bytes(5))


def _life(i: int) -> bytes:
    role = Role.ROLE_SERVER if i % 2 else Role.ROLE_CLIENT
    by = ClosedBy.CLOSED_BY_PEER if i % 2 else ClosedBy.CLOSED_BY_LOCAL
    sent, received, again = i * 31 % 100_003, i * 17 % 1_000_003, i % 50 == 0
    return LIFE.packed.pack(
        90_000 + i * 1009, 15_000 + i * 11 % 50_000, sent, received, 3 + sent // 1448,
        3 + received // 1448, again, 20 + i % 300, 10 + i % 20, 0, 8, role, by,
        CloseCause.CLOSE_FIN, 0, again, sent, received,
    )  # fmt: skip


def _dropped(symbols: Symbols) -> Callable[[int], bytes]:
    places = [each.start + 16 for each in symbols.functions.parts(DROPPED_IN)] or [0]

    def tail(i: int) -> bytes:
        number = STACK.size // 8
        stack = [places[(i % 7 + depth) % len(places)] + depth for depth in range(number)]
        marks = (0x18, 1, DropClass.DROP_RESOURCE, number // 2)
        return DROP.packed.pack(
            stack[0], 3 + i % 11, 2, 52 + i * 13 % 1448, i * 13 % 1448, *marks, i * 1448 % 2**32,
            Role.ROLE_SERVER, 0, bytes(6), b"eth0",
        ) + STACK.pack(*stack)  # fmt: skip

    return tail


def kinds() -> list[Kind]:
    """Return the commands that print records."""
    symbols = Symbols()
    # drop's command depends on options.
    dropping = drop.Drop(symbols)
    return [
        Kind(connect.COMMAND, RecordKind.RECORD_CONNECT, _attempt),
        Kind(connlat.COMMAND, RecordKind.RECORD_CONNECT, _attempt),
        Kind(rtt.COMMAND, RecordKind.RECORD_RTT, _sample),
        Kind(life.COMMAND, RecordKind.RECORD_LIFE, _life),
        Kind(dropping, RecordKind.RECORD_DROP, _dropped(symbols)),
    ]


def records(kind: Kind) -> list[bytes]:
    """Make records of many processes that use many services, as on a busy host.

    Every second one is a server's, with another remote port each time.
    """
    made = []
    for i in range(RECORDS):
        owner, service = i * 7919 % OWNERS, i * 104729 % SERVICES
        ports = (443, 1024 + i % 60000) if i % 2 == 0 else (1024 + i % 60000, 443)
        head = HEAD.packed.pack(kind.record, 0, 1_000_000_000_000 + i * 10_000)
        who = (1, 0, OwnerSource.OWNER_LEARNED, 0, 0, 1000 + owner, owner % 5, b"worker")
        source = bytes([10, 1, 0, 1]).ljust(16, b"\0")
        other = bytes([10, 0, service // 250, service % 250]).ljust(16, b"\0")
        flow = (source, other, 4026531840, ports[0], 4, 0, ports[1], bytes(6))
        made.append(head + OWNER.packed.pack(*who) + FLOW.packed.pack(*flow) + kind.tail(i))
    return made


def rate(work: Callable[[list[bytes]], object], batches: list[list[bytes]]) -> float:
    """Return records a second of this process's CPU time, the median of ROUNDS."""
    found = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        for batch in batches:
            work(batch)
        found.append(RECORDS / (time.process_time() - begin))
    return statistics.median(found)


def read() -> float:
    """Return records a second from reading a ring that the kernel filled to unpacked fields."""
    command = connect.Connect(sync_errors="off")
    obj = Launch(command, Filters(), FILLED_RING).start(None)
    unpack = command.layouts[0].packed.unpack
    with obj:
        ring = obj.ring("ring")
        tracer.load(FILL_SECONDS, 1)
        obj.detach()
        count, begin = 0, time.process_time()
        while batch := ring.consume():
            count += len([unpack(raw) for raw in batch])
        return count / (time.process_time() - begin)


def decode_and_write(kind: Kind, names: CgroupNames, output: int) -> tuple[float, float]:
    """Return records a second of decoding, and of decoding, rendering and writing together."""
    command, made = kind.command, records(kind)
    batches = [made[i : i + ROWS_AT_ONCE] for i in range(0, RECORDS, ROWS_AT_ONCE)]
    groups = command.fields(names, Runtimes())
    schema = Schema(command.name, Clock(), groups, command.layouts[0].size)
    renderer = JsonLines(schema, None)
    decoded = rate(schema.parts.columns, batches)
    return decoded, rate(lambda batch: os.write(output, renderer.rows(batch).encode()), batches)


def measure(add: Callable[..., None]) -> None:
    """Measure reading, decoding, and decoding with writing."""
    done = statistics.median(read() for _ in range(ROUNDS))
    rows = [("records read from the ring and decoded a second", done, PROMISED_DECODED)]
    names = CgroupNames(hierarchies())
    output = os.open(os.devnull, os.O_WRONLY)
    for kind in kinds():
        decoded, written = decode_and_write(kind, names, output)
        name = kind.command.name
        rows.append((f"{name}: records decoded a second", decoded, PROMISED_DECODED))
        rows.append((f"{name}: records written as JSON a second", written, PROMISED_WRITTEN))
    os.close(output)
    names.close()
    for what, found, promised in rows:
        add(what, f"{found:,.0f}", f">= {promised:,}", reached=found >= promised)
