# SPDX-License-Identifier: BSD-2-Clause
"""A session over one ledger: rows of all signals, each with a ring of its own, and sums by owner."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from harness import listener, new_cgroup, unused_port, wait_until

from cgnet.commands.connect.command import Connect
from cgnet.commands.drop.command import Drop
from cgnet.commands.drop.config import DropOptions
from cgnet.commands.life import Life
from cgnet.commands.retrans import Retrans
from cgnet.commands.rtt import Rtt
from cgnet.counting.sums import MAX_OWNERS, OTHER, OwnerSums
from cgnet.filters.selection import Filters, Selection
from cgnet.kernel.symbols import Symbols
from cgnet.records._layouts import CONNECT_EVENT, CloseCause, Role
from cgnet.run.command import Options
from cgnet.run.shared_ledger import Part, SharedLedger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cgnet.run.command import Command

BOTH = frozenset({Role.ROLE_CLIENT, Role.ROLE_SERVER})
RESULT = CONNECT_EVENT.slice("outcome.result")
BYTES = 1000
# Does what each line says, and answers it: "connect PORT COUNT", "refused PORT COUNT", "open PORT",
# "send BYTES" (on what is open, until they came back), "close".
CLIENT = f"""
import socket, sys
kept = None
def talk(sock, count):
    sock.sendall(b"x" * count)
    while count:
        count -= len(sock.recv(count))
for line in sys.stdin:
    what, *numbers = line.split()
    numbers = [int(each) for each in numbers]
    if what == "connect":
        for _ in range(numbers[1]):
            with socket.create_connection(("127.0.0.1", numbers[0])) as sock:
                talk(sock, {BYTES})
    elif what == "refused":
        for _ in range(numbers[1]):
            with socket.socket() as sock:
                assert sock.connect_ex(("127.0.0.1", numbers[0]))
    elif what == "open":
        kept = socket.create_connection(("127.0.0.1", numbers[0]))
    elif what == "send":
        talk(kept, numbers[0])
    else:
        kept.close()
    print(line, end="", flush=True)
"""


class Client:
    """A process in a cgroup of its own, which makes connections as it is told."""

    def __init__(self, cgroup: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        (cgroup / "cgroup.procs").write_text(str(self.process.pid))

    def do(self, what: str) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"{what}\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def client(cgroup: Path) -> Iterator[Client]:
    made = Client(cgroup)
    try:
        yield made
    finally:
        made.end()


def options(selection: Selection, buffer: int) -> Options:
    return Options(
        selection, counting=None, interval=None, output="json", fields=None, no_header=False,
        duration=None, limit=None, buffer=buffer, max_rate=None, strict=False, btf=None, hook=None,
        transport=None,
    )  # fmt: skip


def commands(selection: Selection) -> list[Command]:
    drop = Drop(Symbols(), DropOptions())
    return [Connect(selection, "off"), Life(), Retrans(), drop, Rtt()]


@contextmanager
def session(
    group: Path, *, rows: bool, buffer: int = 1 << 20, max_owners: int = MAX_OWNERS
) -> Iterator[tuple[SharedLedger, list[Command]]]:
    """Load a session of all signals for a cgroup and those below it."""
    selection = Selection(roles=BOTH, cgroup=(str(group),))
    made = commands(selection)
    parts = [Part(each, rows=rows, sums=not rows) for each in made]
    shared = SharedLedger(parts, Filters(selection), options(selection, buffer), max_owners)
    with ExitStack() as cleanup:
        shared.load(cleanup, lambda: False)
        yield shared, made


class Totals(defaultdict[int, OwnerSums]):
    """Sums of several reads."""

    def __init__(self, shared: SharedLedger) -> None:
        super().__init__(OwnerSums)
        self._shared = shared

    def read(self) -> Totals:
        for cgroup, sums in self._shared.aggregates().items():
            self[cgroup] += sums
        return self

    def of_closed(self, cgroup: int, count: int) -> OwnerSums:
        """Return an owner's sums once so many of its connections have ended."""
        wait_until(
            lambda: f"{count} ends of {cgroup}: {self[cgroup].closes}",
            lambda: self.read()[cgroup].closes.total() >= count,
        )
        return self[cgroup]


def test_sums_equal_what_was_made_while_owners_come_and_go(group: Path) -> None:
    owners, each, refusals = 25, 4, 3
    made: list[int] = []
    with listener() as port, session(group, rows=False) as (shared, made_by):
        totals = Totals(shared)
        for number in range(owners):
            with new_cgroup(group) as cgroup, client(cgroup) as its:
                made.append(cgroup.stat().st_ino)
                its.do(f"connect {port} {each}")
                its.do(f"refused {unused_port()} {refusals}")
            if number % 3 == 0:
                totals.read()
        for cgroup_id in made:  # nobody has the cgroup any more
            its_sums = totals.of_closed(cgroup_id, each)
            assert its_sums.established == its_sums.latency.count == each
            assert its_sums.failures == {errno.ECONNREFUSED: refusals}
            assert (its_sums.tx_bytes, its_sums.rx_bytes) == (each * BYTES, each * BYTES)
            assert its_sums.closes == {CloseCause.CLOSE_FIN: each}
            assert its_sums.drops.total() == its_sums.drop_reasons.total() == refusals
            assert its_sums.rtt.count >= each
            assert its_sums.accepts == 0
        assert not any(shared.lost(each)["counts"] for each in made_by)


def test_an_accepting_owner_has_its_side(group: Path) -> None:
    server = (
        "import socket\n"
        "listens = socket.create_server(('127.0.0.1', 0))\n"
        "print(listens.getsockname()[1], flush=True)\n"
        "for _ in range(3):\n"
        "    sock, _ = listens.accept()\n"
        "    sock.sendall(sock.recv(10))\n"
        "    sock.close()\n"
        "input()\n"
    )
    with session(group, rows=False) as (shared, _):
        process = subprocess.Popen(
            ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec {sys.executable} -c "{server}"'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout
            port = int(process.stdout.readline())
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", port)) as sock:
                    sock.sendall(b"x" * 10)
                    assert sock.recv(10)
                    assert not sock.recv(1)
            sums = Totals(shared).of_closed(group.stat().st_ino, 3)
        finally:
            process.communicate("\n")
    assert (sums.accepts, sums.established) == (3, 0)
    assert (sums.rx_bytes, sums.tx_bytes) == (30, 30)
    assert sums.queue
    assert sums.queue.limit == 128  # socket.create_server()'s, on this host


def test_other_owners_stay_others(group: Path) -> None:
    with (
        listener() as port,
        session(group, rows=False, max_owners=2) as (shared, _),
        ExitStack() as end,
    ):
        totals = Totals(shared)
        cgroups = [end.enter_context(new_cgroup(group)) for _ in range(4)]
        clients = [end.enter_context(client(cgroup)) for cgroup in cgroups]
        ids = [cgroup.stat().st_ino for cgroup in cgroups]
        for turn in range(1, 3):
            for its in clients:
                its.do(f"connect {port} 3")
            totals.of_closed(OTHER, 2 * turn * 3)
            assert {each: totals.read()[each].established for each in (*ids[:2], OTHER)} == {
                ids[0]: 3 * turn, ids[1]: 3 * turn, OTHER: 6 * turn,
            }  # fmt: skip
            assert not set(totals) & {*ids[2:]}


def test_what_is_open_counts_since_the_start(group: Path) -> None:
    with listener() as port, new_cgroup(group) as cgroup, client(cgroup) as early:
        early.do(f"open {port}")
        early.do("send 5000")
        cgroup_id = cgroup.stat().st_ino
        with session(group, rows=False) as (shared, _):
            totals = Totals(shared)
            early.do("send 300")
            assert totals.read()[cgroup_id].tx_bytes == totals[cgroup_id].rx_bytes == 300
            with client(cgroup) as late:
                late.do(f"open {port}")
                late.do("send 70")
                assert totals.read()[cgroup_id].tx_bytes == 370
                late.do("send 4")
                late.do("close")
            early.do("send 100")
            early.do("close")
            sums = totals.of_closed(cgroup_id, 2)
            assert (sums.tx_bytes, sums.rx_bytes) == (474, 474)


def test_a_flood_of_one_kind_takes_no_room_of_another(group: Path) -> None:
    refusals, connections = 4000, 150
    with (
        listener() as port, new_cgroup(group) as one, new_cgroup(group) as other,
        session(group, rows=True, buffer=1 << 16) as (shared, (connect, life, _, drop, _)),
        client(one) as flood, client(other) as its,
    ):  # fmt: skip
        flood.do(f"refused {unused_port()} {refusals // 2}")
        its.do(f"connect {port} {connections}")
        flood.do(f"refused {unused_port()} {refusals // 2}")
        results = [int.from_bytes(raw[RESULT], sys.byteorder) for raw in shared.read(connect)
                   if len(raw) == CONNECT_EVENT.size]  # fmt: skip
        assert results.count(0) == connections
        lost = shared.lost(connect)["ring"]
        assert lost
        assert results.count(errno.ECONNREFUSED) + lost == refusals
        assert shared.lost(life)["ring"] == 0
        assert len(shared.read(drop)) + shared.lost(drop)["ring"] == refusals


def test_programs_of_signals_that_nobody_wants_are_not_there(group: Path) -> None:
    selection = Selection(roles=BOTH, cgroup=(str(group),))
    parts = [Part(Life(), rows=False, sums=True)]
    shared = SharedLedger(parts, Filters(selection), options(selection, 1 << 16))
    with ExitStack() as cleanup:
        shared.load(cleanup, lambda: False)
        names = {each.name for each in shared.obj.attached()}
    assert names >= {"state", "state_again", "receive_reset", "send_reset", "ledger_gone"}
    assert not names & {
        "dropped",
        "syn_drop",
        "probe",
        "retransmit",
        "retransmit_synack",
        "trace_error",
    }
