# SPDX-License-Identifier: BSD-2-Clause
"""What `cgnet doctor` says of this host, beside what else can be known of it."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import resource
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from harness import CGNET, HIERARCHY_NAME, need

BTF = Path("/sys/kernel/btf/vmlinux")
SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
BPF_MAP_CREATE = 0
NO_PREALLOC = 1
# Where a way of seeing errors before a SYN attaches.
SECTIONS = {"fexit": "fexit/", "kprobe": "kretprobe/", "tracepoints": "tracepoint/"}


def cgnet(*arguments: Any, rights: str = "") -> subprocess.CompletedProcess[str]:
    """Run it, perhaps with fewer capabilities, as setpriv calls them."""
    command = [str(CGNET), *map(str, arguments)]
    if rights:
        command = [need("setpriv"), f"--bounding-set={rights}", *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def examine(*arguments: Any, status: int = 0, rights: str = "") -> dict[str, Any]:
    done = cgnet("doctor", "-o", "json", *arguments, rights=rights)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return examine()


@pytest.fixture(scope="module")
def works(report: dict[str, Any]) -> dict[str, bool]:
    return {each["name"]: each["works"] for each in report["features"]}


@pytest.fixture(scope="module")
def connect(report: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in report["commands"] if each["name"] == "connect")


def attached(*arguments: str) -> set[str]:
    """Return the sections of the programs that a run attaches."""
    done = cgnet("-v", "connect", "--duration", "0.1", *arguments)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if ": attached " in line]
    return {line.split()[-1] for line in lines}


def creates(kind: int, key: int, value: int, entries: int, flags: int = 0) -> bool:
    """Tell whether the kernel makes a map, asked without libbpf."""
    with suppress(ValueError, PermissionError):  # kernels before 5.11 count maps as locked memory
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    attributes = (ctypes.c_uint32 * 32)(kind, key, value, entries, flags)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_BPF, BPF_MAP_CREATE, attributes, ctypes.sizeof(attributes))
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def test_the_host_is_described_as_it_is(report: dict[str, Any]) -> None:
    assert (report["schema"], report["type"]) == (2, "doctor")
    kernel = {"release": platform.release(), "machine": platform.machine()}
    assert report["kernel"] == kernel
    size = BTF.stat().st_size
    assert report["btf"] == {"path": str(BTF), "given": False, "size": size, "problem": None}
    assert report["libbpf"]["version"] in cgnet("--version").stdout
    assert Path(report["libbpf"]["path"]).is_file()
    assert report["cgroups"]["owners"] == HIERARCHY_NAME
    for each in report["cgroups"]["hierarchies"]:
        assert (Path(each["mount"]) / "cgroup.procs").exists()


def test_every_feature_is_answered_and_a_no_has_a_reason(report: dict[str, Any]) -> None:
    for each in report["features"]:
        assert each["works"] in {True, False}, each
        assert bool(each["why"]) != each["works"], each


def test_a_hook_works_if_a_run_that_must_take_it_does(
    connect: dict[str, Any], works: dict[str, bool], hook: str
) -> None:
    refused = {each["way"] for each in connect["refused"] if each["part"] == "hook"}
    done = cgnet("connect", "--hook", hook, "--duration", "0.1")
    usable = connect["uses"]["hook"] == hook or (hook == "raw_tp" and works["raw_tp"])
    assert (done.returncode == 0) == usable
    assert usable or hook in refused


def test_the_hook_that_is_named_is_the_one_that_is_attached(connect: dict[str, Any]) -> None:
    states = {each for each in attached() if each.endswith("/inet_sock_set_state")}
    assert states == {f"{connect['uses']['hook']}/inet_sock_set_state"}


SHORT = {"ring buffer": "ring", "perf buffers": "perf"}
LEDGERS = {"slots by": "slots", "slots, then": "storage", "hash by": "hash"}


@pytest.mark.parametrize("name", ["connect", "connlat", "rtt", "life", "retrans", "drop", "trace"])
def test_what_a_command_takes_is_what_its_summary_says(report: dict[str, Any], name: str) -> None:
    uses = next(each["uses"] for each in report["commands"] if each["name"] == name)
    done = cgnet(name, "-o", "json", "--duration", "0.1")
    summary = json.loads(done.stdout.splitlines()[-1])
    ledger = next(short for words, short in LEDGERS.items() if uses["ledger"].startswith(words))
    said = (uses["hook"], SHORT[uses["transport"]], ledger)
    assert (summary["hook"], summary["transport"], summary["ledger"]) == said
    assert ("in the place of" in done.stderr) == (said[0] != "tp_btf")


def test_the_way_to_what_is_open_is_the_one_that_is_loaded(report: dict[str, Any]) -> None:
    uses = next(each["uses"] for each in report["commands"] if each["name"] == "life")
    done = cgnet("life", "-i", "1", "--duration", "0.1")
    assert ("connections" in done.stderr) == (uses["living"] != "iterators over the ledger's maps")


@pytest.mark.parametrize("hook", ["tp_btf", "raw_tp"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["connect"], ["connlat"], ["rtt"], ["life", "-i", "1"], ["retrans"], ["drop"],
        ["trace"],
    ],
    ids=lambda each: each[0],
)  # fmt: skip
def test_what_doctor_takes_is_not_refused_when_it_is_loaded(
    report: dict[str, Any], works: dict[str, bool], arguments: list[str], hook: str
) -> None:
    if not works[hook]:
        pytest.skip(f"this kernel has no {hook}")
    done = cgnet("-v", *arguments, "--hook", hook, "--duration", "0.1")
    assert done.returncode == 0, done.stderr
    at_load = set(re.findall(r"^cgnet\.run\.launch: no (.+?): ", done.stderr, re.MULTILINE))
    uses = next(each for each in report["commands"] if each["name"] == arguments[0])
    assert at_load <= {each["way"] for each in uses["refused"]}


def test_the_way_to_errors_before_a_syn_is_the_one_that_is_attached(
    connect: dict[str, Any],
) -> None:
    way = connect["uses"]["sync_errors"].split()[0]
    sections = attached("--sync-errors", "on")
    taken = {name for name, start in SECTIONS.items() if any(s.startswith(start) for s in sections)}
    assert taken == {way}


def test_maps_are_there_if_the_kernel_makes_them(works: dict[str, bool]) -> None:
    assert works["ring_buffer"] == creates(27, 0, 0, 64 * 1024)
    assert works["lpm_trie"] == creates(11, 20, 1, 1, NO_PREALLOC)


def test_kprobes_work_only_where_the_kernel_has_them(works: dict[str, bool]) -> None:
    there = Path("/sys/bus/event_source/devices/kprobe").exists()
    assert there or not (works["kprobe"] or works["kretprobe"])


def test_what_stands_on_a_feature_does_not_work_without_it(works: dict[str, bool]) -> None:
    for name in ("task_btf", "tcp_sock", "socket_cookie", "socket_storage"):
        assert works["tp_btf"] or not works[name]


def test_the_kernels_own_btf_in_a_file_gives_the_same_answers(
    report: dict[str, Any], tmp_path: Path
) -> None:
    copy = tmp_path / "btf"
    copy.write_bytes(BTF.read_bytes())
    for path in (BTF, copy):
        given = examine("--btf", path)
        assert given["btf"] == {**report["btf"], "path": str(path), "given": True}
        assert {**given, "btf": None} == {**report, "btf": None}


def tracing(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the commands that need something of the kernel."""
    found = [each for each in report["commands"] if each["uses"]]
    assert found
    assert all(each["runs"] for each in report["commands"] if not each["uses"])
    return found


def test_another_file_is_no_btf_and_no_command_runs() -> None:
    found = examine("--btf", "/proc/self/status", status=4)
    assert all(found["btf"]["problem"] in each["missing"] for each in tracing(found))


def test_without_capabilities_it_tells_what_is_missing(report: dict[str, Any]) -> None:
    found = examine(status=4, rights="-all")
    assert (found["kernel"], found["cgroups"]) == (report["kernel"], report["cgroups"])
    for each in tracing(found):
        assert not each["runs"]
        assert "not permitted: needs CAP_" in each["missing"][0]
    assert {each["works"] for each in found["features"]} == {None}
    assert not any(each["held"] for each in found["rights"])


def test_with_few_capabilities_it_says_whether_a_command_runs() -> None:
    """CAP_BPF and CAP_PERFMON, by number: an older setpriv doesn't know the names."""
    rights = "-all,+cap_38,+cap_39"
    found = cgnet("doctor", "-o", "json", rights=rights)
    commands = {each["name"]: each["runs"] for each in json.loads(found.stdout)["commands"]}
    done = cgnet("connect", "--duration", "0.1", rights=rights)
    assert commands["connect"] == (done.returncode == 0), done.stderr
    assert found.returncode == (0 if all(commands.values()) else 4)


def test_the_report_for_people_says_the_same(report: dict[str, Any]) -> None:
    done = cgnet("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for command in report["commands"]:
        assert f"cgnet {command['name']} can run\n" in done.stdout
        assert all(f" {way}\n" in done.stdout for way in command["uses"].values())
    words = {True: "yes", False: "no"}
    for each in report["features"]:
        lines = [line.split()[:2] for line in done.stdout.splitlines()]
        assert [each["name"], words[each["works"]]] in lines


def test_nothing_is_left_behind() -> None:
    """Programs and probes of a trial are gone when it has ended."""
    before = examine()
    assert examine() == before
    events = Path("/sys/kernel/tracing/kprobe_events")
    if events.exists():
        assert "tcp_v4_connect" not in events.read_text()
