# SPDX-License-Identifier: BSD-2-Clause
"""Whole runs of the command, with a made-up kernel side."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from command_lines import ROOT
from fakes import lines, run
from records import Connect

from cgnet.cli import _run
from cgnet.errors import StoppedError
from cgnet.owners.cgroups import default_hierarchy, hierarchies
from cgnet.records._layouts import CGROUP_EVENT, LostWhere, OwnerSource, RecordKind
from cgnet.run import output, printer
from cgnet.run.losses import ADVICE

if TYPE_CHECKING:
    from fakes import FakeKernel


def test_records_come_out_in_order_and_a_summary_ends_them(
    kernel: FakeKernel, capfd: pytest.CaptureFixture[str]
) -> None:
    kernel.batches = [[Connect(pid=1).raw(), Connect(pid=2).raw()], [Connect(pid=3).raw()]]
    kernel.late = [Connect(pid=4, source=OwnerSource.OWNER_UNKNOWN).raw()]
    status, out, err = run(capfd, "-o", "json")
    *rows, summary = lines(out)
    assert (status, [row["pid"] for row in rows]) == (0, [1, 2, 3, None])
    assert {name: summary[name] for name in ("schema", "type", "records", "lost")} == {
        "schema": 2,
        "type": "summary",
        "records": 4,
        "lost": 0,
    }
    assert summary["unknown_owners"] == 1
    assert err[-1].startswith("cgnet: tracing connect")
    assert kernel.did == ["start", "detach", "close"]


def test_a_table_tells_the_summary_on_stderr(
    kernel: FakeKernel, capfd: pytest.CaptureFixture[str]
) -> None:
    kernel.batches = [[Connect().raw()]]
    status, out, err = run(capfd)
    assert (status, len(out.splitlines())) == (0, 2)
    assert out.startswith("TIME ")
    assert err[-1] == "cgnet: 1 records, 0 lost, 0 of unknown owners"


def test_the_summary_tells_what_ran(kernel: FakeKernel, capfd: pytest.CaptureFixture[str]) -> None:
    """People are told where a better variant exists."""
    kernel.runs = {"hook": "raw_tp", "transport": "ring", "ledger": "hash"}
    *_, summary = lines(run(capfd, "-o", "json")[1])
    assert {name: summary[name] for name in kernel.runs} == kernel.runs
    assert (
        run(capfd)[2][-1] == "cgnet: 0 records, 0 lost, 0 of unknown owners; by raw_tp, ring, hash"
    )


def test_a_signal_during_the_start_ends_it_cleanly(
    kernel: FakeKernel, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        raise StoppedError("a signal came")

    monkeypatch.setattr(kernel, "start", start)
    assert _run(["connect"]) == 0
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_start_that_nobody_asked_to_end_is_a_failure(
    kernel: FakeKernel, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> None:
        raise StoppedError("a signal came")

    monkeypatch.setattr(kernel, "start", start)
    assert _run(["connect"]) == 1
    assert capfd.readouterr() == ("", "cgnet: a signal came\n")


def test_the_limit_ends_the_run_in_the_middle_of_a_batch(
    kernel: FakeKernel, capfd: pytest.CaptureFixture[str]
) -> None:
    kernel.batches = [[Connect(pid=pid).raw() for pid in pids] for pids in ((0, 1), (2, 3, 4))]
    status = _run(["connect", "-o", "json", "--limit", "3"])
    *rows, summary = lines(capfd.readouterr().out)
    assert (status, [row["pid"] for row in rows]) == (0, [0, 1, 2])
    assert summary["records"] == 3


@pytest.mark.parametrize(("arguments", "expected"), [([], 0), (["--strict"], 5)])
def test_what_was_lost_is_told_as_it_happens_and_in_the_summary(
    kernel: FakeKernel,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: int,
) -> None:
    kernel.lost[LostWhere.LOST_RING] = 7
    status, out, err = run(capfd, "-o", "json", *arguments)
    first, *_, summary = lines(out)
    assert (status, summary["lost"]) == (expected, 7)
    assert (first["type"], first["count"], first["where"]) == ("lost", 7, "ring")
    assert [line for line in err if line.startswith("cgnet: lost 7 (ring): ")]


@pytest.mark.parametrize("where", [each for each in LostWhere if each.name != "LOST_WHERE_COUNT"])
def test_everything_that_the_kernel_side_can_lose_is_told(
    kernel: FakeKernel, capfd: pytest.CaptureFixture[str], where: LostWhere
) -> None:
    kernel.lost[where] = 2
    _, out, _ = run(capfd, "-o", "json")
    name = where.name.removeprefix("LOST_").lower()
    assert [row["where"] for row in lines(out) if row["type"] == "lost"] == [name]


def test_strict_without_loss_is_done(kernel: FakeKernel, capfd: pytest.CaptureFixture[str]) -> None:
    kernel.batches = [[Connect().raw()]]
    assert run(capfd, "--strict")[0] == 0


def test_a_cgroup_that_the_kernel_tells_of_names_the_records_of_its_batch(
    kernel: FakeKernel, capfd: pytest.CaptureFixture[str]
) -> None:
    naming = default_hierarchy(hierarchies())
    owner = (1 << 62, naming.id)
    created = CGROUP_EVENT.packed.pack(
        RecordKind.RECORD_CGROUP_CREATED, 0, 0, *owner, 0, b"/docker/new\xff"
    )
    kernel.batches = [[Connect(cgroup_id=owner[0], hierarchy=owner[1]).raw(), created]]
    _, out, _ = run(capfd, "-o", "json")
    row = lines(out)[0]
    assert (row["hierarchy"], row["cgroup"]) == (naming.name, "/docker/new\\xff")


def test_a_given_cgroup_that_is_removed_is_told(
    kernel: FakeKernel, capfd: pytest.CaptureFixture[str]
) -> None:
    naming = default_hierarchy(hierarchies())
    gone = CGROUP_EVENT.packed.pack(
        RecordKind.RECORD_CGROUP_REMOVED, 0, 0, 1 << 62, naming.id, 1, naming.root.encode()
    )
    kernel.batches = [[gone]]
    _, _, err = run(capfd, "--cgroup", str(naming.mount))
    assert f"cgnet: --cgroup {naming.mount}: it was removed; " in "\n".join(err)


def test_errors_before_a_syn_that_go_unseen_are_told_before_tracing_begins(
    kernel: FakeKernel, capfd: pytest.CaptureFixture[str]
) -> None:
    _, _, err = run(capfd)
    places = [next(i for i, line in enumerate(err) if part in line) for part in ("SYN", "tracing")]
    assert places == sorted(places)
    assert kernel.did[0] == "start"


def test_a_reader_that_goes_away_ends_it_cleanly(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(printer, "STDOUT", writer)
    kernel.batches = [[Connect().raw()]]
    status = _run(["connect"])
    os.close(writer)
    assert (status, kernel.did[-1]) == (0, "close")
    assert "Traceback" not in capfd.readouterr().err


def test_a_full_disk_is_told_in_one_line(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(printer, "STDOUT", full)
    kernel.batches = [[Connect().raw()]]
    try:
        status, _, err = run(capfd)
    finally:
        os.close(full)
    assert (status, kernel.did[-1]) == (1, "close")
    assert err[-1].startswith("cgnet: ")
    assert "No space left on device" in err[-1]


class Stalled:
    """An output whose reader stalls; what the pipe took can be read in the end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reader, self.writer = os.pipe()
        monkeypatch.setattr(printer, "STDOUT", self.writer)
        monkeypatch.setattr(output, "STALL_S", 0.1)

    def lines(self) -> list[str]:
        os.close(self.writer)
        with open(self.reader, encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            return file.read().splitlines()


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> Stalled:
    return Stalled(monkeypatch)


@pytest.mark.parametrize("kind", ["json", "csv", "table"])
@pytest.mark.parametrize("strict", [("", 0), ("--strict", 5)], ids=str)
def test_rows_that_a_stalled_reader_never_took_are_told_as_lost(
    kernel: FakeKernel,
    stalled: Stalled,
    capfd: pytest.CaptureFixture[str],
    kind: str,
    strict: tuple[str, int],
) -> None:
    made, (option, expected) = 4000, strict
    kernel.batches = [[Connect(pid=pid).raw() for pid in range(made)], [Connect(pid=made).raw()]]
    status, _, err = run(capfd, "-o", kind, *option.split())
    *whole, last = stalled.lines()
    shown = len(whole) - (kind != "json")  # a header
    assert (status, kernel.did[-1]) == (expected, "close")
    lost = made + 1 - shown
    assert 0 < shown < made
    assert err[-2] == f"cgnet: lost {lost} (output): {ADVICE['output']}"
    assert err[-1] == f"cgnet: {shown} records, {lost} lost, 0 of unknown owners"
    assert len(last) < len(whole[-1]) or kind == "table"


def test_a_disk_that_is_full_has_a_summary_too(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(printer, "STDOUT", full)
    kernel.batches = [[Connect().raw()] * 3]
    kernel.late = [Connect().raw()] * 2
    status, _, err = run(capfd, "-o", "json")
    os.close(full)
    assert status == 1
    assert err[-3].startswith("cgnet: lost 5 (output): ")
    assert err[-2:] == [
        "cgnet: 0 records, 5 lost, 0 of unknown owners",
        "cgnet: can't write the output: No space left on device",
    ]


@pytest.mark.parametrize("page", ["docs/usage.md", "packaging/cgnet-connect.service"])
def test_the_journals_line_takes_rows_from_between_messages(
    kernel: FakeKernel, capfd: pytest.CaptureFixture[str], page: str
) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    (line,) = re.findall(r"journalctl -u cgnet-connect -o cat \| (.*)", text)
    refused = Connect(result=errno.ECONNREFUSED)
    kernel.batches = [[Connect().raw(), refused.raw()]]
    _, out, err = run(capfd, "-o", "json")
    journal = "\n".join([err[0], *out.splitlines(), *err[1:]])
    done = subprocess.run(
        ["/bin/sh", "-c", line], check=True, input=journal, capture_output=True, text=True
    )
    assert json.loads(done.stdout)["result"] == "ECONNREFUSED"
    assert not done.stderr


@pytest.mark.parametrize("terminal", [True, False])
def test_a_slow_start_is_said_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    monkeypatch.setattr(output, "SLOW_S", 0.01)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    said: list[str] = []
    monkeypatch.setattr(output, "tell", said.append)
    with output.said_if_slow("loading"):
        wait_end = time.monotonic() + (10 if terminal else 0.1)
        while not said and time.monotonic() < wait_end:
            time.sleep(0.005)
    assert said == (["loading"] if terminal else [])


def test_a_quick_start_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    said: list[str] = []
    monkeypatch.setattr(output, "tell", said.append)
    with output.said_if_slow("loading"):
        pass
    assert said == []
