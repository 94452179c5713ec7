# SPDX-License-Identifier: BSD-2-Clause
"""Runs that measure, with a made-up kernel side."""

from __future__ import annotations

import csv
import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from fakes import lines, run
from histogram import Made
from records import ENDED, IDENTITY, SAMPLE, Connect, record_of

from cgnet.counting.counts import Counting
from cgnet.counting.histograms import FIELDS, MICROSECONDS, Scale, linear
from cgnet.counting.keys import Key
from cgnet.owners import cgroups
from cgnet.records._layouts import (
    CGROUP_EVENT,
    RTT_SAMPLE,
    ConnectConfig,
    OwnerSource,
    RecordKind,
)
from cgnet.run import owner_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes import FakeKernel

    Said = pytest.CaptureFixture[str]

LATER = 1 << 62  # nanoseconds: behind every look


def measured(
    kernel: FakeKernel, values: list[int], scale: Scale = MICROSECONDS, **key: Any
) -> None:
    """Put a histogram into the table that is in use."""
    kernel.map("histograms_even").update(Connect(**key).count_key(), Made(values, scale).raw())


def life(ts_ns: int = 0, **values: Any) -> bytes:
    tail = ENDED._replace(**values).pack() + IDENTITY
    return record_of(RecordKind.RECORD_LIFE, tail, Connect(ts_ns=ts_ns))


@pytest.mark.parametrize(
    ("command", "arguments", "counting", "min_ns"),
    [
        ("connlat", ["--min-ms", "1"], None, 1_000_000),
        ("connlat", ["--hist", "--by", "pid"], Counting([Key("pid")], MICROSECONDS), 0),
        ("connect", ["-c", "--by", "pid"], Counting([Key("pid")]), 0),
        ("connect", [], None, 0),
    ],
    ids=str,
)
def test_the_launch_is_told_what_to_count_and_measure(  # noqa: PLR0917
    kernel: FakeKernel,
    capfd: Said,
    command: str,
    arguments: list[str],
    counting: Counting | None,
    min_ns: int,
) -> None:
    assert run(capfd, *arguments, command=command)[0] == 0
    assert not kernel.told.pop("stopped")()
    assert kernel.told.pop("config") == [ConnectConfig(min_ns)]
    assert kernel.told == {"counting": counting, "maps": {}}


@pytest.mark.parametrize("command", ["connlat", "rtt"])
def test_histograms_as_json_have_all_that_is_told(
    kernel: FakeKernel, capfd: Said, command: str
) -> None:
    scale = linear("0,100,10")
    measured(kernel, [5, 55, 500], scale, dport=80)
    measured(kernel, [7], scale, dport=443, source=OwnerSource.OWNER_UNKNOWN)
    arguments = ["--by", "dport", "--linear", "0,100,10", "-o", "json"]
    arguments += ["--hist"] if command == "connlat" else []
    first, second, summary = lines(run(capfd, *arguments, command=command)[1])
    assert (first.pop("schema"), first.pop("type")) == (2, command)
    assert {first.pop("time")[-1], type(first.pop("ts_ns"))} == {"Z", int}
    told = Made([5, 55, 500], scale).read().values(scale)
    assert first == {"dport": 80, **dict(zip(FIELDS, told, strict=True))}
    assert (second["dport"], second["count"]) == (443, 1)
    assert (summary["records"], summary["unknown_owners"]) == (2, 1)


@pytest.mark.parametrize("output", ["table", "wide"])
def test_histograms_are_drawn_for_people(kernel: FakeKernel, capfd: Said, output: str) -> None:
    measured(kernel, [1000, 1500], dport=80)
    arguments = ["--by", "dport", "-o", output]
    _, out, err = run(capfd, *arguments, command="rtt")
    assert "dport=80\n  2 samples, min 1.00 ms, " in out
    assert out.splitlines()[-2].endswith("█")
    assert err[-1] == "cgnet: 1 records, 0 lost, 0 of unknown owners"
    measured(kernel, [1000, 1500], dport=80)
    assert "min 1 ms" in run(capfd, *arguments, "--ms", command="rtt")[1]


def test_histograms_as_csv_have_the_buckets_in_a_cell(kernel: FakeKernel, capfd: Said) -> None:
    measured(kernel, [0, 5, 6])
    _, out, _ = run(capfd, "-o", "csv", command="rtt")
    header, row = csv.reader(out.splitlines())
    assert header == ["schema", "type", "time", "ts_ns", *FIELDS]
    cells = dict(zip(header, row, strict=True))
    assert json.loads(cells["buckets"])[0] == [0, 0.954, 1]


def test_a_drawing_takes_no_fields(capfd: Said) -> None:
    status, out, err = run(capfd, "--fields", "count", command="rtt")
    assert (status, out) == (2, "")
    assert "--fields: histograms are drawn whole" in err[-1]


def test_single_samples_come_as_rows(kernel: FakeKernel, capfd: Said) -> None:
    tail = RTT_SAMPLE.packed.pack(*SAMPLE) + IDENTITY
    kernel.batches = [[record_of(RecordKind.RECORD_RTT, tail)]]
    row, _ = lines(run(capfd, "--slower", "1ms", "-o", "json", command="rtt")[1])
    assert (row["type"], row["rtt_us"], row["srtt_us"]) == ("rtt", 1500, 1800)


def test_connections_that_end_come_as_rows(kernel: FakeKernel, capfd: Said) -> None:
    kernel.batches = [[life()], [life(closed_by=3)]]
    *rows, _ = lines(run(capfd, "-o", "json", command="life")[1])
    assert [(row["closed_by"], row["open"]) for row in rows] == [("peer", False), ("kernel", False)]
    assert not [each for each in kernel.did if "living" in each]


def test_with_an_interval_what_is_open_is_told_but_not_by_the_first_look(
    kernel: FakeKernel, capfd: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deltas count from there. What ends, and what began since, is told from the beginning."""
    looks: list[int] = []

    def iterator(program: str, elements_of: str) -> Iterator[bytes] | None:
        now = time.monotonic_ns()
        if (program, elements_of) == ("living", "ledger"):
            looks.append(1 + len(looks))
            return iter([life(now, closed_by=0, tx_bytes=len(looks), duration_ns=0)])
        if (program, elements_of) != ("living_slots", "ledger_slots"):
            return None
        if len(looks) == 1:
            return iter([life(now, closed_by=0, tx_bytes=50, duration_ns=1)])
        kernel.batches.append([life(now, closed_by=1, tx_bytes=99)])
        signal.raise_signal(signal.SIGINT)
        return iter([])

    monkeypatch.setattr(kernel, "iterator", iterator)
    kernel.batches = [[life(1, closed_by=2, tx_bytes=77)]]
    arguments = ("-i", "0.1", "--duration", "inf", "-o", "json")
    *rows, _ = lines(run(capfd, *arguments, command="life")[1])
    shown = [(row["tx_bytes"], row["open"]) for row in rows]
    assert shown[:4] == [(50, True), (77, False), (2, True), (99, False)]
    assert 1 not in {each for each, opened in shown if opened}


def test_owners_of_namespaces_are_followed_where_the_object_asks_for_them(
    kernel: FakeKernel, capfd: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Owners:
        def __init__(
            self, _runtimes: Any, _naming: Any, owners: Any, addresses: Any, **rest: Any
        ) -> None:
            assert owners is kernel.map("netns_owners")
            assert addresses is (kernel.map("address_owners") if wants_addresses else None)
            assert rest == {"in_containers": None}

        def made(self, cgroup: str, number: int | None = None) -> None:
            said.append(f"made {cgroup}" + (f" {number}" if number else ""))

        def gone(self, cgroup: str, number: int) -> None:
            said.append(f"gone {cgroup} {number}")

        def follow(self, spent: float = 0.0) -> None:
            said.append(f"follow {spent}")

    monkeypatch.setattr(owner_names, "NetnsOwners", Owners)
    wants_addresses = False
    run(capfd)
    assert said == []
    naming = cgroups.default_hierarchy(cgroups.hierarchies()).id
    changes = [
        CGROUP_EVENT.packed.pack(kind, 0, 0, 1 << 62, hierarchy, 0, b"/new")
        for kind, hierarchy in (
            (RecordKind.RECORD_CGROUP_CREATED, naming),
            (RecordKind.RECORD_CGROUP_REMOVED, naming),
            (RecordKind.RECORD_CGROUP_CREATED, naming + 1000),
        )
    ]
    for maps in ({"netns_owners"}, {"netns_owners", "address_owners"}):
        said.clear()
        kernel.has, wants_addresses = maps, len(maps) > 1
        kernel.batches = [changes]
        run(capfd, command="rtt")
        assert "made /" in said
        first = said.index("follow inf")
        assert said[first + 1 : first + 3] == [f"made /new {1 << 62}", f"gone /new {1 << 62}"]
