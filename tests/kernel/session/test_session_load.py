# SPDX-License-Identifier: BSD-2-Clause
"""A session under load: thousands of cgroups in turn, and refusals beside connections."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from harness import listener, new_cgroup, unused_port, wait_until
from test_session import BYTES, RESULT, Totals, client, session

from cgnet.counting.sums import MAX_OWNERS, OTHER
from cgnet.records._layouts import CONNECT_EVENT, CloseCause, RecordKind, u64
from cgnet.records.schema import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from test_session import Client

    from cgnet.run.command import Command
    from cgnet.run.shared_ledger import SharedLedger

KINDS = (RecordKind.RECORD_CONNECT, RecordKind.RECORD_DROP)
CGROUP_ID = CONNECT_EVENT.slice("owner.cgroup_id")  # all records have it there
OFTEN = 500  # cgroups between two reads
READ_S = 0.05
FLOOD_S, FLOODERS, CONNECTS_A_SECOND = 5.0, 2, 1000
PREEMPTED = 0.9995
# Connects to a closed port for so many seconds, as fast as it can; prints how often.
FLOOD = """
import socket, sys, time
port, seconds, count = int(sys.argv[1]), float(sys.argv[2]), 0
sys.stdin.readline()
end = time.monotonic() + seconds
while time.monotonic() < end:
    for _ in range(100):
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", port))
    count += 100
print(count)
"""


def visit(group: Path, its: Client, port: int, connections: int, refusals: int) -> int:
    """Have a process make connections in a new cgroup, which is then removed; return its number."""
    cgroup = group / "visited"
    cgroup.mkdir()
    try:
        (cgroup / "cgroup.procs").write_text(str(its.process.pid))
        if connections:
            its.do(f"connect {port} {connections}")
        if refusals:
            its.do(f"refused {unused_port()} {refusals}")
        return cgroup.stat().st_ino
    finally:
        (group / "cgroup.procs").write_text(str(its.process.pid))
        cgroup.rmdir()


def test_five_thousand_cgroups_in_turn(group: Path) -> None:
    """Their sums are what each made, whenever they are read."""
    owners, each, refusals = 5000, 2, 1
    with (
        listener() as port,
        session(group, rows=False) as (shared, made_by),
        new_cgroup(group) as home,
        client(home) as its,
    ):
        totals = Totals(shared)
        made = []
        for number in range(owners):
            made.append(visit(home, its, port, each, refusals))
            if number % OFTEN == 0:
                totals.read()
        assert len(set(made)) == owners

        def ended() -> int:
            totals.read()
            return sum(totals[cgroup].closes.total() for cgroup in made)

        wait_until(lambda: f"{ended()} ends", lambda: ended() >= owners * each)
        wrong = {
            cgroup: sums
            for cgroup in made
            if (
                (sums := totals[cgroup]).established, sums.latency.count, sums.tx_bytes, sums.rx_bytes
            ) != (each, each, each * BYTES, each * BYTES)
            or sums.failures != {errno.ECONNREFUSED: refusals}
            or sums.closes != {CloseCause.CLOSE_FIN: each}
        }  # fmt: skip
        assert not wrong
        assert not totals[OTHER].established
        assert not any(shared.lost(each)["counts"] for each in made_by)


def test_twenty_thousand_new_cgroups_push_nobody_out(group: Path) -> None:
    """Those beyond the limit are others, and nobody's sums begin anew."""
    later, steady = 20_000, 3
    with (
        listener() as port,
        session(group, rows=False) as (shared, made_by),
        new_cgroup(group) as home,
        client(home) as visitor,
        ExitStack() as end,
    ):
        cgroups = [end.enter_context(new_cgroup(group)) for _ in range(steady)]
        clients = [end.enter_context(client(cgroup)) for cgroup in cgroups]
        ids = [cgroup.stat().st_ino for cgroup in cgroups]
        totals = Totals(shared)
        rounds = 0

        def everybody() -> None:
            nonlocal rounds
            rounds += 1
            for its in clients:
                its.do(f"connect {port} 1")
            assert [totals.read()[cgroup].established for cgroup in ids] == [rounds] * steady

        everybody()
        made = []
        for number in range(later):
            made.append(visit(home, visitor, port, 0, 1))
            if number % OFTEN == 0:
                everybody()
        everybody()
        refused = {cgroup: totals[cgroup].failures.total() for cgroup in made if cgroup in totals}
        beyond = totals[OTHER].failures.total()
        assert set(refused.values()) == {1}
        assert len(refused) + beyond == later
        assert beyond >= later + steady - MAX_OWNERS
        assert [cgroup for cgroup in made if cgroup in refused] == made[: len(refused)]
        assert not any(shared.lost(each)["counts"] for each in made_by)


@contextmanager
def flood(cgroup: Path, port: int) -> Iterator[list[subprocess.Popen[str]]]:
    made = [
        subprocess.Popen(
            [sys.executable, "-c", FLOOD, str(port), str(FLOOD_S)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(FLOODERS)
    ]  # fmt: skip
    try:
        for each in made:
            (cgroup / "cgroup.procs").write_text(str(each.pid))
        yield made
    finally:
        for each in made:
            each.kill()
            each.communicate()


def drained(shared: SharedLedger, command: Command, *cgroups: Path) -> list[bytes]:
    """Return all records of cgroups that the rings have now: a read takes a batch.

    Also cgroups that were created since the start are there: user space decides about them.
    """
    ids = {u64(cgroup.stat().st_ino) for cgroup in cgroups}
    records: list[bytes] = []
    while batch := shared.read(command):
        records += batch
    return [raw for raw in records if kind_of(raw) in KINDS and raw[CGROUP_ID] in ids]


class Results(threading.Thread):
    """Counts the results of attempts, as a session's reader takes them."""

    def __init__(self, shared: SharedLedger, connect: Command, *cgroups: Path) -> None:
        super().__init__()
        self._asked = shared, connect, *cgroups
        self.counts: Counter[int] = Counter()
        self.stopped = threading.Event()

    def take(self) -> None:
        taken = (raw[RESULT] for raw in drained(*self._asked))
        self.counts.update(int.from_bytes(each, sys.byteorder) for each in taken)

    def run(self) -> None:
        while not self.stopped.wait(READ_S):
            self.take()
        self.take()


@pytest.mark.parametrize("buffer", [1 << 16, 1 << 22])
def test_refusals_as_fast_as_they_come_beside_connections(group: Path, buffer: int) -> None:
    """No connection is lost, and of refusals it is known exactly how many were."""
    port_refused = unused_port()
    with (
        listener() as port, new_cgroup(group) as one, new_cgroup(group) as other,
        session(group, rows=True, buffer=buffer) as (shared, (connect, _, _, drop, _)),
        client(other) as its, flood(one, port_refused) as flooders,
    ):  # fmt: skip
        results = Results(shared, connect, one, other)
        results.start()
        for each in flooders:
            assert each.stdin
            each.stdin.write("\n")
            each.stdin.flush()
        connected, began = 0, time.monotonic()
        while (elapsed := time.monotonic() - began) < FLOOD_S:
            if (due := int(elapsed * CONNECTS_A_SECOND) - connected) > 0:
                its.do(f"connect {port} {min(due, 100)}")
                connected += min(due, 100)
        refused = sum(int(each.communicate()[0]) for each in flooders)
        results.stopped.set()
        results.join()
        print(
            f"{refused / FLOOD_S:,.0f} refusals and {connected / elapsed:,.0f} connections a second,"
            f" {shared.lost(connect)['ring']} records of refusals lost"
        )
        assert results.counts[0] == connected
        assert results.counts[errno.ECONNREFUSED] + shared.lost(connect)["ring"] == refused
        # A sender that is preempted before its SYN leaves, while the other one connects again and again,
        # is forgotten: its drop is nobody's, and filters by owner leave it out.
        told = len(drained(shared, drop, one)) + shared.lost(drop)["ring"]
        assert refused * PREEMPTED <= told <= refused
