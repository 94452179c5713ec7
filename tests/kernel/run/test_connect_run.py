# SPDX-License-Identifier: BSD-2-Clause
"""How a run begins and ends: limits, signals, pipes, rights, loss, and what stays behind."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import (
    CGNET,
    HIERARCHY,
    PATIENCE_S,
    ROOT,
    Tracer,
    cgnet,
    check,
    need,
    new_cgroup,
    run,
    tracing,
    wait_until,
)
from kernel_maps import entries

BTF = Path("/sys/kernel/btf/vmlinux")


def test_limit_ends_after_so_many_rows(group: Path, port: int) -> None:
    with tracing("--limit", "3", "--cgroup", str(group)) as tracer:
        run("connect", "127.0.0.1", port, 10, cgroups=(group,))
        assert tracer.process.wait(PATIENCE_S) == 0
        assert len(tracer.stop()) == 3


def test_duration_counts_from_tracing() -> None:
    started = time.monotonic()
    done = cgnet("connect", "--duration", "0.5", "-o", "json")
    assert done.returncode == 0
    assert time.monotonic() - started >= 0.5
    assert json.loads(done.stdout.splitlines()[-1])["type"] == "summary"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_with_a_summary(number: int, group: Path, port: int) -> None:
    with tracing("--cgroup", str(group)) as tracer:
        made = run("connect", "127.0.0.1", port, 5, cgroups=(group,))
        rows = tracer.stop(number)  # what was in the ring is drained first
        (summary,) = tracer.rows("summary")
    assert len(rows) == len(made) == summary["records"]
    assert (summary["lost"], summary["unknown_owners"]) == (0, 0)


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_a_reader_that_goes_away_ends_it_cleanly(output: str, group: Path, port: int) -> None:
    process = subprocess.Popen(
        f"{CGNET} connect --cgroup {group} -o {output} | head -n 1",
        shell=True,
        executable=need("bash"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SHELLOPTS": "pipefail"},
    )
    assert process.stderr is not None
    said = [process.stderr.readline()]
    while not said[-1].startswith("cgnet: tracing"):
        said.append(process.stderr.readline())
    if output == "json":
        run("connect", "127.0.0.1", port, cgroups=(group,))
    out, errors = process.communicate(timeout=PATIENCE_S)  # it ends without another event
    assert process.returncode == 0
    assert len(out.splitlines()) == 1
    assert "Traceback" not in errors


def test_what_does_not_fit_the_ring_is_counted(hook: str, group: Path, port: int) -> None:
    with tracing("--hook", hook, "--buffer", "4K", "--cgroup", str(group)) as tracer:
        tracer.process.send_signal(signal.SIGSTOP)
        run("connect", "127.0.0.1", port, 200, cgroups=(group,))
        tracer.process.send_signal(signal.SIGCONT)
        rows = tracer.stop()
        (summary,) = tracer.rows("summary")
        lost = tracer.rows("lost")
    assert len(rows) == summary["records"]
    assert summary["lost"] > 0
    assert len(rows) + summary["lost"] == 200
    assert sum(row["count"] for row in lost if row["where"] == "ring") == summary["lost"]
    assert any("lost" in line and "--buffer" in line for line in tracer.said)


def test_strict_exits_with_5_when_events_were_lost(group: Path, port: int) -> None:
    with tracing("--strict", "--buffer", "4K", "--cgroup", str(group)) as tracer:
        tracer.process.send_signal(signal.SIGSTOP)
        run("connect", "127.0.0.1", port, 200, cgroups=(group,))
        tracer.process.send_signal(signal.SIGCONT)
        tracer.process.send_signal(signal.SIGINT)
        assert tracer.process.wait(PATIENCE_S) == 5


def test_both_hooks_show_the_same_rows(group: Path, port: int) -> None:
    with (
        tracing("--hook", "tp_btf", "--cgroup", str(group)) as typed,
        tracing("--hook", "raw_tp", "--cgroup", str(group)) as raw,
    ):
        made = [
            *run("connect", "127.0.0.1", port, 20, cgroups=(group,)),
            *run("connect", "::1", 1, cgroups=(group,)),
            *run("twice", 1, port, cgroups=(group,)),
            *run("connect", "::ffff:127.0.0.1", port, cgroups=(group,)),
        ]
        rows = [check(tracer, made) for tracer in (typed, raw)]
    measured = {"time", "ts_ns", "latency_us"}
    timeless = [[{k: v for k, v in row.items() if k not in measured} for row in r] for r in rows]
    assert timeless[0] == timeless[1]


def test_without_capabilities_it_exits_with_3_and_names_them() -> None:
    # CAP_DAC_OVERRIDE only lets it read the tree, wherever that lies.
    done = subprocess.run(
        [need("setpriv"), "--bounding-set", "-all,+dac_override", CGNET, "connect"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 3
    assert "CAP_BPF and CAP_PERFMON" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("missing", ["bpf", "perfmon"])
def test_the_missing_capability_is_named(missing: str) -> None:
    done = subprocess.run(
        [need("setpriv"), "--bounding-set", f"-sys_admin,-{missing}", CGNET, "connect"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 3
    other = {"bpf": "perfmon", "perfmon": "bpf"}[missing]
    assert f"CAP_{missing.upper()}" in done.stderr
    assert f"CAP_{other.upper()}" not in done.stderr


def test_bpf_and_perfmon_are_enough(group: Path, port: int) -> None:
    arguments = [
        "connect",
        "--cgroup",
        str(group),
        "--limit",
        "1",
        "--fields",
        "cgroup",
        "-o",
        "csv",
    ]
    process = subprocess.Popen(
        [need("setpriv"), "--bounding-set", "-all,+bpf,+perfmon", CGNET, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "tracing" not in process.stderr.readline():
        assert process.poll() is None
    run("connect", "127.0.0.1", port, cgroups=(group,))
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert out.splitlines() == ["cgroup", f"/{group.name}"]


def without_btf(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run cgnet where the kernel's BTF is hidden, in a mount namespace of its own."""
    script = f"mount -t tmpfs none {BTF.parent} && exec {CGNET} {' '.join(arguments)}"
    return subprocess.run(
        [need("unshare"), "-m", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_no_btf_exits_with_4_and_says_how_to_give_one() -> None:
    done = without_btf("connect")
    assert done.returncode == 4
    assert "--btf FILE" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_btf_from_a_file_is_enough(tmp_path: Path) -> None:
    copy = tmp_path / "vmlinux"
    shutil.copyfile(BTF, copy)
    done = without_btf("connect", "--btf", str(copy), "--duration", "0.2", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert "summary" in done.stdout


def installed_copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src/cgnet", tmp_path / "cgnet")
    return tmp_path / "cgnet/_bpf/connect.typed.bpf.o"


@pytest.mark.parametrize("keep", [0, 100, 0.5, -1])
def test_damaged_object_is_a_layout_error(tmp_path: Path, keep: float) -> None:
    path = installed_copy(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    done = subprocess.run(
        [ROOT / ".venv/bin/python", "-c", "from cgnet.cli import main; main(['connect'])"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    assert re.search(r"struct \w+: field \w+: ", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_gets_colour_and_fits_its_width(group: Path, port: int) -> None:
    leader, follower = pty.openpty()
    os.set_blocking(leader, False)
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [CGNET, "connect", "--cgroup", str(group), "--limit", "1"],
        stdout=follower,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stderr is not None
        while "tracing" not in process.stderr.readline():
            assert process.poll() is None
        run("connect", "127.0.0.1", port, cgroups=(group,))
        assert process.wait(PATIENCE_S) == 0
        shown = os.read(leader, 1 << 16).decode()
    finally:
        process.kill()
        process.communicate()
        os.close(leader)
        os.close(follower)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    header, row = plain.splitlines()
    assert shown != plain
    assert max(len(header), len(row)) <= 120
    assert header.index("RESULT") == row.index("ok")


def test_nothing_stays_when_the_sockets_are_gone(hook: str, group: Path, port: int) -> None:
    """Entries of the ledger end with their sockets, for every way an attempt can end."""
    with tracing("--hook", hook, "--sync-errors", "on", "--cgroup", str(group)) as tracer:
        for _ in range(5):
            run("connect", "127.0.0.1", port, 20, cgroups=(group,))
            run("connect", "127.0.0.1", 1, 20, cgroups=(group,))
            run("twice", 1, port, cgroups=(group,))
        tracer.wait_for(5 * 43)
        held = ["attempts", "connect_calls"] + ["attempt_slots"] * (hook == "tp_btf")
        for name in held:
            wait_until(f"{name} is empty", lambda name=name: entries(tracer.process.pid, name) == 0)


def test_many_cgroups_below_the_selected_one(port: int) -> None:
    with new_cgroup(HIERARCHY) as top:
        for number in range(300):
            (top / f"g{number}").mkdir()
        tracer = Tracer("--cgroup", str(top))
        try:
            last = top / "g299"
            check(tracer, run("connect", "127.0.0.1", port, cgroups=(last,)))
        finally:
            tracer.kill()
