# SPDX-License-Identifier: BSD-2-Clause
"""What runs in a guest: mount cgroups, ask `cgnet doctor`, run tests, write down how each ended.

Run as ``python guest.py LAYOUT PART RESULTS``.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from subset import PARTS, TRANSPORTS

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "bench"))  # the kernel's statistics are read there
import cost  # noqa: E402
import rates  # noqa: E402

CGROUPS = Path("/sys/fs/cgroup")
CGNET = ROOT / ".venv/bin/cgnet"
SCRATCH = "/tmp/cgnet"  # the guest's own
PATIENCE_S = 120  # of each test: a guest may be emulated, on a host that is busy
LINES = 5  # of what a failing test said


def shell(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


def mount(kind: str, options: str, at: Path) -> str:
    """Return why it can't be mounted; "" if it is."""
    at.mkdir(exist_ok=True)
    done = shell("mount", "-t", kind, *(["-o", options] if options else []), "none", str(at))
    if done.returncode:
        at.rmdir()
    return done.stderr.strip()


def lay_out(layout: str) -> str:
    """Mount the cgroup hierarchies of a layout; return what it lacks that containers need."""
    if layout == "v2":
        return "" if (CGROUPS / "cgroup.procs").exists() else "no cgroup2"
    shell("umount", str(CGROUPS))
    mount("tmpfs", "", CGROUPS)
    lines = Path("/proc/cgroups").read_text().splitlines()[1:]
    names = [name for name, _, _, enabled in (line.split() for line in lines) if enabled == "1"]
    refused = {name: mount("cgroup", name, CGROUPS / name) for name in names}
    if layout == "hybrid":
        mount("cgroup2", "", CGROUPS / "unified")
    return refused.get("memory", "no memory controller")


class Recorder:
    """How each test ended, as pytest tells it."""

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self.ended: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        known = self.ended.get(report.nodeid)
        if known is None or report.outcome != "passed":
            self.ended[report.nodeid] = {
                "test": report.nodeid,
                "transport": self.transport,
                "outcome": report.outcome,
                "why": why(report),
            }

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.ended[report.nodeid] = {
                "test": report.nodeid, "transport": self.transport, "outcome": "failed",
                "why": str(report.longrepr).splitlines()[-1],
            }  # fmt: skip


def why(report: pytest.TestReport) -> str:
    """Return a test's reason not to pass."""
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    lines = re.findall(r"^E\s+(.*)", str(report.longrepr or ""), re.MULTILINE)
    return " | ".join(lines[:LINES])


def run_tests(part: str, transport: str, hooks: str) -> list[dict[str, Any]]:
    """Run the tests of a part, those of the hooks that pytest's -k chooses."""
    os.chdir(ROOT)
    os.environ["CGNET_TESTS_PATIENCE_S"] = str(PATIENCE_S)
    recorder = Recorder(transport)
    arguments = [f"tests/kernel/{test}" for tests in PARTS[part].values() for test in tests]
    pytest.main(
        [
            "-v", "--no-header", "--tb=short", "-p", "no:cacheprovider", "--durations=15",
            "-o", f"pythonpath={ROOT}/tests/kernel/support {ROOT}/tests/faults",
            f"--basetemp={SCRATCH}/{transport}", f"--transport={transport}", "-k", hooks, *arguments,
        ],
        plugins=[recorder],
    )  # fmt: skip
    return list(recorder.ended.values())


def main() -> None:
    layout, part, results = sys.argv[1:]
    shell("ip", "link", "set", "lo", "up")
    shell("modprobe", "tun")
    Path(SCRATCH).mkdir()
    lacks = lay_out(layout)
    found: dict[str, Any] = {
        "release": platform.release(), "layout": layout, "lacks": lacks, "doctor": None, "tests": [],
    }  # fmt: skip
    if part == "costs" and not lacks:
        found["costs"] = cost.measure_all(CGNET)
        found["rates"] = rates.measure_all(CGNET)
    elif not lacks:
        found["doctor"] = json.loads(shell(str(CGNET), "doctor", "-o", "json").stdout)
        found["tests"] = all_tests(part, found["doctor"])
    Path(results).write_text(json.dumps(found, indent=1))


def all_tests(part: str, doctor: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the tests of a part by each transport that they are about."""
    works = {each["name"]: each["works"] for each in doctor["features"]}
    connect = next(each for each in doctor["commands"] if each["name"] == "connect")
    # Perf buffers are for kernels that have raw_tp alone.
    ways = {"ring": "" if connect["uses"]["hook"] == "tp_btf" else "not tp_btf", "perf": "raw_tp"}
    found = []
    for transport, hooks in ways.items():
        if works[TRANSPORTS[transport]] and (transport == "ring" or part == "commands"):
            found += run_tests(part, transport, hooks)
    return found


if __name__ == "__main__":
    main()
