# SPDX-License-Identifier: BSD-2-Clause
"""What `cgnet doctor` says of hosts that are made up."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cgnet import loader
from cgnet.cli import _run
from cgnet.commands import COMMANDS
from cgnet.commands.connect.command import Connect
from cgnet.commands.doctor import command as doctor
from cgnet.commands.doctor import host
from cgnet.commands.doctor.report import WIDTH, report_text
from cgnet.commands.drop.command import Drop
from cgnet.commands.life import Life
from cgnet.commands.retrans import Retrans
from cgnet.commands.sockets.command import Sockets
from cgnet.commands.why.command import JOBS
from cgnet.errors import NotPermittedError, UnsupportedError
from cgnet.kernel import probes, variants
from cgnet.kernel.probes import (
    FEXIT,
    KRETPROBE,
    PERF_BUFFERS,
    RING_BUFFER,
    SOCKET_COOKIE,
    SOCKET_STORAGE,
    TRACEPOINT,
    Answer,
    Feature,
)
from cgnet.owners.cgroups import Hierarchy

if TYPE_CHECKING:
    from collections.abc import Callable

    Kernel = Callable[..., None]

DOCUMENT = Path(__file__).parents[3] / "docs/doctor.md"
V2 = Hierarchy(0, "v2", ("v2",), Path("/sys/fs/cgroup"), "/")
MEMORY = Hierarchy(7, "memory", ("memory",), Path("/sys/fs/cgroup/memory"), "/")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Make a kernel that has every feature but some, on a host with all else."""

    def make(*lacks: Feature) -> None:
        def trial(feature: Feature) -> Answer:
            lacking = feature in lacks
            return Answer(ok=not lacking, why="the kernel said no" if lacking else "")

        monkeypatch.setattr(probes, "trial", trial)
        monkeypatch.setattr(probes, "trial_at", lambda *_: Answer(ok=True))

    monkeypatch.setattr(variants, "require_capabilities", lambda: None)
    monkeypatch.setattr(host, "hierarchies", lambda: [MEMORY, V2])
    monkeypatch.setattr(host, "is_kernel_btf", lambda _path: True)
    monkeypatch.setattr(variants, "KERNEL_BTF", Path("/proc/self/status"))
    make()
    return make


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = _run(["doctor", "-o", "json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def connect(report: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in report["commands"] if each["name"] == "connect")


def documented() -> list[list[str]]:
    """Return the fields of the tables in the document, table by table."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("## The fields")[2]
    tables = re.split(r"^\|---.*\n", text, flags=re.MULTILINE)[1:]
    return [re.findall(r"^\| `(\w+)`", table, re.MULTILINE) for table in tables]


def test_the_commands_are_all_others() -> None:
    assert {*doctor.command_names(), "doctor"} == set(COMMANDS)


TRACING = set(doctor.command_names()) - {"containers"}  # which loads nothing


def test_every_command_says_what_it_needs(
    kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel()
    _, report = run(capsys)
    assert {each["name"] for each in report["commands"] if each["uses"]} == TRACING


def test_on_a_kernel_that_has_everything_the_best_ways_are_taken(
    kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel()
    status, report = run(capsys)
    assert status == 0
    assert connect(report) == {
        "name": "connect",
        "runs": True,
        "missing": [],
        "uses": {
            "hook": "tp_btf",
            "transport": "ring buffer",
            "ledger": "slots by socket cookie",
            "listeners": "socket storage",
            "seeds": "iterator over files",
            "networks": "trie of prefixes",
            "counts": "two tables that change places",
            "sync_errors": "fexit",
        },
        "refused": [],
        "stages": [],
    }
    assert {each["works"] for each in report["features"]} == {True}
    assert {each["why"] for each in report["features"]} == {None}


def test_the_json_has_the_documented_fields_and_no_others(
    kernel: Kernel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel(FEXIT)
    monkeypatch.setattr(host, "runtimes", lambda: [{"name": "podman", "paths": ["/x"]}])
    _, report = run(capsys)
    parts = [
        report, report["cgroups"]["hierarchies"][0], report["runtimes"][0], report["rights"][0],
        connect(report), report["features"][0],
    ]  # fmt: skip
    assert [list(part) for part in parts] == documented()
    told = DOCUMENT.read_text(encoding="utf-8")
    inner = {**report["kernel"], **report["btf"], **report["libbpf"], **report["cgroups"]}
    for name in {*inner, *connect(report)["uses"], *connect(report)["refused"][0]}:
        assert f"`{name}`" in told, name


SYSCALL = "tracepoints of the system call, with --sync-errors on"


@pytest.mark.parametrize(
    ("lacks", "part", "ways"),
    [
        ((FEXIT,), "sync_errors", ["fexit", "kprobe"]),
        ((FEXIT, KRETPROBE), "sync_errors", ["fexit", "kprobe", SYSCALL]),
        ((FEXIT, KRETPROBE, TRACEPOINT), "sync_errors", ["fexit", "kprobe", SYSCALL, "not seen"]),
        ((SOCKET_COOKIE,), "hook", ["tp_btf", "raw_tp"]),
        ((SOCKET_COOKIE,), "ledger", ["slots by socket cookie", "hash by socket address"]),
        ((SOCKET_STORAGE,), "listeners", ["socket storage", "hash by address and port"]),
    ],
)
def test_what_a_kernel_lacks_costs_only_what_needs_it(
    kernel: Kernel,
    capsys: pytest.CaptureFixture[str],
    lacks: tuple[Feature, ...],
    part: str,
    ways: list[str],
) -> None:
    """The ways are those that are refused, and the one that is taken."""
    kernel(*lacks)
    status, report = run(capsys)
    command = connect(report)
    assert (status, command["runs"], command["missing"]) == (0, True, [])
    reasons = [each for each in command["refused"] if each["part"] == part]
    assert [*(each["way"] for each in reasons), command["uses"][part]] == ways
    assert all(each["why"].endswith("the kernel said no") for each in reasons)
    assert [each["name"] for each in report["features"] if not each["works"]] == [
        feature.name for feature in probes.FEATURES if feature in lacks
    ]


def test_a_command_that_cannot_run_is_told_and_is_status_4(
    kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel(RING_BUFFER, PERF_BUFFERS)
    status, report = run(capsys)
    assert status == 4
    assert not connect(report)["runs"]
    assert connect(report)["uses"]["transport"] is None
    assert connect(report)["missing"] == [
        f"transport: {way} buffer{s}: {way}_buffer{s}: the kernel said no"
        for way, s in (("ring", ""), ("perf", "s"))
    ]
    assert _run(["doctor"]) == 4
    assert "cgnet connect can't run\n  missing     transport: ring" in capsys.readouterr().out


def test_without_rights_nothing_is_tried_and_the_capability_is_named(
    kernel: Kernel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel(*probes.FEATURES)

    def refuse() -> None:
        raise NotPermittedError("needs CAP_BPF and CAP_PERFMON: run it as root")

    monkeypatch.setattr(variants, "require_capabilities", refuse)
    why = "not permitted: needs CAP_BPF and CAP_PERFMON: run it as root"
    status, report = run(capsys)
    assert status == 4
    assert connect(report)["missing"] == [why]
    assert set(connect(report)["uses"].values()) == {None}
    assert connect(report)["refused"] == []
    assert {(each["works"], each["why"]) for each in report["features"]} == {(None, why)}
    assert report["kernel"]["release"] == os.uname().release
    assert report["cgroups"]["layout"] == "hybrid"
    unable = [each for each in report["commands"] if not each["runs"]]
    assert report_text(report).count(why) == len(unable) == len(TRACING)


def test_without_libbpf_the_rest_is_still_told(
    kernel: Kernel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel()

    def refuse() -> tuple[str, None]:
        raise UnsupportedError("cannot load libbpf.so.1")

    monkeypatch.setattr(loader, "libbpf", refuse)
    monkeypatch.setattr(host, "is_kernel_btf", lambda _path: refuse())
    status, report = run(capsys)
    assert status == 4
    assert "cannot load libbpf.so.1" in connect(report)["missing"]
    assert {each["works"] for each in report["features"]} == {None}


def test_a_kernel_without_btf_needs_the_option(
    kernel: Kernel,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    kernel()
    monkeypatch.setattr(variants, "KERNEL_BTF", tmp_path / "none")
    status, report = run(capsys)
    assert (status, report["btf"]["size"]) == (4, None)
    assert "--btf FILE" in report["btf"]["problem"]
    assert connect(report)["missing"] == [report["btf"]["problem"]]
    given = tmp_path / "vmlinux"
    given.write_bytes(b"1234")
    status, report = run(capsys, "--btf", str(given))
    expected = {"path": str(given), "given": True, "size": 4, "problem": None}
    assert (status, report["btf"]) == (0, expected)


def test_without_a_hierarchy_no_command_runs(
    kernel: Kernel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel()
    monkeypatch.setattr(host, "hierarchies", list)
    status, report = run(capsys)
    assert status == 4
    assert connect(report)["missing"] == [report["cgroups"]["problem"]]


def test_the_report_for_people_escapes_names_and_says_all(
    kernel: Kernel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel(FEXIT, KRETPROBE, TRACEPOINT)
    hostile = MEMORY._replace(mount=Path("/sys/\x1b[31m\n\u202e"))
    monkeypatch.setattr(host, "hierarchies", lambda: [hostile])
    assert _run(["doctor"]) == 0
    text = capsys.readouterr().out
    assert r"/sys/\x1b[31m\n\u202e" in text
    assert "\x1b" not in text
    for feature in probes.FEATURES:
        assert re.search(rf"^{feature.name} +(yes|no) ", text, re.MULTILINE)
    assert "  sync errors not seen\n              not fexit: the kernel said no\n" in text
    assert "why not: the kernel said no\n" in text
    assert f"costs: {FEXIT.cost}\n" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_on_a_narrow_terminal_what_is_long_goes_on_below_its_column(
    kernel: Kernel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel(FEXIT, KRETPROBE, TRACEPOINT)
    monkeypatch.setattr(doctor, "terminal_width", lambda: 80)
    monkeypatch.setattr(os, "isatty", lambda _descriptor: True)
    _run(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    table = lines[lines.index(next(line for line in lines if line.startswith("FEATURE"))) + 1 :]
    column = next(line for line in table if line.startswith("tp_btf")).index("hooks")
    names = [feature.name for feature in probes.FEATURES]
    assert [line.split()[0] for line in table if not line.startswith(" ")] == names
    below = [line for line in table if line.startswith(" ")]
    assert {len(line) - len(line.lstrip()) for line in below} == {column, column + 2}
    words = " ".join(" ".join(lines).split())
    assert all(feature.purpose in words for feature in probes.FEATURES)


@pytest.mark.parametrize("width", [1, 30])
def test_a_terminal_that_is_too_narrow_still_gets_all(
    kernel: Kernel, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    kernel()
    _, report = run(capsys)
    narrow, wide = report_text(report, width).split(), report_text(report).split()
    assert narrow == wide


def test_a_btf_file_that_is_not_there_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["doctor", "--btf", "/no/such/file"]) == 2
    assert "/no/such/file" in capsys.readouterr().err


def test_why_needs_what_its_signals_need() -> None:
    parts = (Connect, Life, Retrans, Drop, Sockets)
    assert {job.name for job in JOBS} == {job.name for each in parts for job in each.jobs}
