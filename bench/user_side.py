# SPDX-License-Identifier: BSD-2-Clause
"""How many records a second the Python side decodes and writes, on one core."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING

import tracer

from cgnet._layouts import CONNECT_EVENT, OwnerSource, Role, SyncErrors
from cgnet.cgroups import CgroupNames, hierarchies
from cgnet.commands.connect import COMMAND
from cgnet.events import Clock, Schema
from cgnet.filters import Filters
from cgnet.launch import Extra, Launch
from cgnet.render.json_lines import JsonLines
from cgnet.runtimes import Runtimes

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDS = 50_000
OWNERS, SERVICES = 200, 500
ROUNDS = 5
BATCH = 4096
FILLED_RING, FILL_SECONDS = 1 << 24, 3.0
PROMISED_DECODED, PROMISED_WRITTEN = 400_000, 150_000


def records() -> list[bytes]:
    """Make records of many processes that connect to many services, as a busy host gives them."""
    pack = CONNECT_EVENT.packed.pack
    made = []
    for i in range(RECORDS):
        owner, service = i * 7919 % OWNERS, i * 104729 % SERVICES
        head = (1, 0, 1_000_000_000_000 + i * 10_000)
        who = (1, 0, OwnerSource.OWNER_LEARNED, 0, 0, 1000 + owner, owner % 5, b"worker")
        daddr = bytes([10, 0, service // 250, service % 250]).ljust(16, b"\0")
        flow = (bytes([10, 1, 0, 1]).ljust(16, b"\0"), daddr, 4026531840, 443, 4, 0)
        port = (1024 + i % 60000, bytes(6))
        outcome = (150_000 + i, 0, 0 if i % 20 else 111, 1, Role.ROLE_CLIENT)
        made.append(pack(*head, *who, *flow, *port, *outcome))
    return made


def rate(work: Callable[[list[bytes]], object], batches: list[list[bytes]]) -> float:
    """Return records a second of this process's own time, the median of some rounds."""
    found = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        for batch in batches:
            work(batch)
        found.append(RECORDS / (time.process_time() - begin))
    return statistics.median(found)


def read_and_decode() -> float:
    """Return records a second from a ring that the kernel filled to the values of their fields."""
    none = Extra(frozenset(), SyncErrors.SYNC_ERRORS_UNSEEN)
    obj, _ = Launch(COMMAND.object, COMMAND.layouts, Filters(), FILLED_RING).start(
        [none], None, None
    )
    unpack = CONNECT_EVENT.packed.unpack
    with obj:
        ring = obj.ring("ring")
        tracer.load(FILL_SECONDS, 1)
        obj.detach()
        count, begin = 0, time.process_time()
        while batch := ring.consume():
            count += len([unpack(raw) for raw in batch])
        return count / (time.process_time() - begin)


def measure(add: Callable[..., None]) -> None:
    """Measure reading and decoding, and everything from there up to the file."""
    made = records()
    batches = [made[i : i + BATCH] for i in range(0, RECORDS, BATCH)]
    names = CgroupNames(hierarchies())
    schema = Schema(COMMAND.name, Clock(), COMMAND.groups(names, Runtimes()), CONNECT_EVENT.size)
    renderer = JsonLines(schema, None)
    output = os.open(os.devnull, os.O_WRONLY)
    decoded = statistics.median(read_and_decode() for _ in range(ROUNDS))
    written = rate(lambda batch: os.write(output, renderer.rows(batch).encode()), batches)
    os.close(output)
    names.close()
    for what, found, promised in (
        ("records read from the ring and decoded a second", decoded, PROMISED_DECODED),
        ("records written as JSON a second", written, PROMISED_WRITTEN),
    ):
        add(what, f"{found:,.0f}", f">= {promised:,}", reached=found >= promised)
