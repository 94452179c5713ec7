# SPDX-License-Identifier: BSD-2-Clause
"""Runs that select or count, with a made-up kernel side."""

from __future__ import annotations

import csv
import signal
import sys
from typing import TYPE_CHECKING, Any

from fakes import lines, run
from records import Connect

from cgnet.filters.cgroup import SELECTED, cgroup_key
from cgnet.owners.cgroups import default_hierarchy, hierarchies
from cgnet.records._layouts import (
    CGROUP_EVENT,
    CGROUP_MARK,
    OwnerSource,
    RecordKind,
    Undecided,
)
from cgnet.run import cgroup_watch, reader, session

if TYPE_CHECKING:
    import pytest
    from fakes import FakeKernel

    Said = pytest.CaptureFixture[str]

CGROUP = 1 << 62  # an id that no cgroup of the host has
NEW = Undecided.UNDECIDED_NEW


def naming() -> int:
    """Return the id of the hierarchy that names owners."""
    return default_hierarchy(hierarchies()).id


def change(kind: RecordKind, path: str, cgroup: int = CGROUP, marks: int = 0) -> bytes:
    """Return the record of a cgroup that was made or removed."""
    return CGROUP_EVENT.packed.pack(kind, 0, 0, cgroup, naming(), marks, path.encode())


def connect(**values: Any) -> bytes:
    return Connect(**{"cgroup_id": CGROUP, "hierarchy": naming()} | values).raw()


def counted(kernel: FakeKernel, number: int, table: str = "counts_even", **values: Any) -> None:
    """Put a count into a table."""
    key = Connect(**{"cgroup_id": CGROUP, "hierarchy": naming()} | values).count_key()
    kernel.map(table).update(key, number.to_bytes(8, sys.byteorder))


def test_owners_in_new_cgroups_are_shown_if_a_pattern_matches(
    kernel: FakeKernel, capfd: Said
) -> None:
    created = RecordKind.RECORD_CGROUP_CREATED
    kernel.batches = [
        [
            connect(pid=1, undecided=NEW),
            connect(pid=2, undecided=NEW, cgroup_id=CGROUP + 1),
            connect(pid=3, undecided=Undecided.UNDECIDED_SELECTED, cgroup_id=CGROUP + 2),
            connect(pid=4),
            change(created, "/cgnet-none/yes1"),
            change(created, "/cgnet-none/other", CGROUP + 1),
            change(created, "/cgnet-none/yes2/not", CGROUP + 2),
        ]
    ]
    arguments = ("-o", "json", "--cgroup", "/cgnet-none/yes*", "--cgroup", "!/**/not")
    *rows, summary = lines(run(capfd, *arguments)[1])
    assert ([row["pid"] for row in rows], summary["records"]) == ([1, 4], 2)
    assert [*kernel.entries("selected_cgroups")] == [
        cgroup_key(naming(), CGROUP),
        cgroup_key(naming(), CGROUP + 2),
    ]


def test_the_mark_of_a_cgroup_that_is_gone_is_forgotten_later(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, capfd: Said
) -> None:
    key = cgroup_key(naming(), CGROUP)
    kernel.map("selected_cgroups").update(key, CGROUP_MARK.packed.pack(SELECTED, 1))
    gone = change(RecordKind.RECORD_CGROUP_REMOVED, "/x", marks=SELECTED)
    kernel.batches = [[gone]]
    run(capfd)
    assert [*kernel.entries("selected_cgroups")] == [key]  # its sockets may live on
    monkeypatch.setattr(cgroup_watch, "FORGET_CGROUP_AFTER_S", 0)
    monkeypatch.setattr(session, "LOST_EVERY_S", 0)
    kernel.batches = [[gone]]
    run(capfd)
    assert kernel.entries("selected_cgroups") == {}


def test_rows_above_the_rate_are_lost_and_told(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, capfd: Said
) -> None:
    monkeypatch.setattr(reader.RateLimit, "take", lambda _self, wanted: min(wanted, 2))
    kernel.batches = [[connect(pid=pid) for pid in range(5)], [connect(pid=9)]]
    status, out, err = run(capfd, "-o", "json", "--max-rate", "2", "--strict")
    found = lines(out)
    assert (status, [row["pid"] for row in found if row["type"] == "connect"]) == (5, [0, 1, 9])
    assert [(row["where"], row["count"]) for row in found if row["type"] == "lost"] == [("rate", 3)]
    assert (found[-1]["records"], found[-1]["lost"]) == (3, 3)
    assert "cgnet: lost 3 (rate): rows above --max-rate" in err


def test_counts_are_printed_once_at_the_end(kernel: FakeKernel, capfd: Said) -> None:
    kernel.batches = [[change(RecordKind.RECORD_CGROUP_CREATED, "/docker/web")]]
    counted(kernel, 2, result=111)
    counted(kernel, 5)
    counted(kernel, 1, source=OwnerSource.OWNER_UNKNOWN)
    first, second, third, summary = lines(run(capfd, "-c", "-o", "json")[1])
    head = {name: first.pop(name) for name in ("schema", "type", "time", "ts_ns")}
    assert (head["schema"], head["type"]) == (2, "connect")
    assert first == {
        "container": None, "pod": None, "pod_namespace": None,
        "cgroup": "/docker/web", "result": "ok", "count": 5,
    }  # fmt: skip
    assert (second["result"], second["count"]) == ("ECONNREFUSED", 2)
    assert (third["cgroup"], third["count"]) == (None, 1)
    assert (summary["records"], summary["unknown_owners"]) == (3, 1)


def test_with_an_interval_each_table_is_printed_in_turn(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, capfd: Said
) -> None:
    def consume() -> list[bytes]:
        if kernel.entries("counts"):  # the other table was put into use
            signal.raise_signal(signal.SIGINT)
        return []

    counted(kernel, 3, "counts_even")
    counted(kernel, 4, "counts_odd")
    monkeypatch.setattr(kernel, "consume", consume)
    _, out, _ = run(capfd, "-c", "--by", "dport", "-i", "0.1", "--duration", "inf", "-o", "json")
    *rows, _ = lines(out)
    assert [(row["dport"], row["count"]) for row in rows] == [(443, 3), (443, 4)]


def test_a_table_of_counts_has_the_keys_as_columns(kernel: FakeKernel, capfd: Said) -> None:
    kernel.batches = [[change(RecordKind.RECORD_CGROUP_CREATED, "/docker/web")]]
    counted(kernel, 5, result=-1)
    _, out, err = run(capfd, "-c", "--by", "container,result,daddr/24")
    header, row = out.splitlines()
    assert header.split() == ["TIME", "CONTAINER/CGROUP", "RESULT", "DESTINATION", "COUNT"]
    assert row.split()[1:] == ["/docker/web", "aborted", "10.0.0.0/24", "5"]
    assert err[-1].startswith("cgnet: 1 records, ")


def test_counts_as_csv_have_the_names_of_json(kernel: FakeKernel, capfd: Said) -> None:
    counted(kernel, 5, dport=80)
    counted(kernel, 6, dport=81)
    _, out, _ = run(capfd, "-c", "--by", "dport,role", "-o", "csv", "--limit", "1")
    header, *rows = csv.reader(out.splitlines())
    assert header == ["schema", "type", "time", "ts_ns", "dport", "role", "count"]
    assert [row[4:] for row in rows] == [["81", "client", "6"]]


def test_chosen_fields_of_counts(kernel: FakeKernel, capfd: Said) -> None:
    counted(kernel, 5, dport=80)
    _, out, _ = run(capfd, "-c", "--by", "dport", "-o", "json", "--fields", "count,dport")
    assert lines(out)[0] == {"count": 5, "dport": 80}
