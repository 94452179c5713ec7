# SPDX-License-Identifier: BSD-2-Clause
"""The demo of the README's first screen: it shows every outcome and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import PATIENCE_S, ROOT, V1, V2


def left_behind() -> set[str]:
    namespaces = {path.name for path in Path("/run/netns").glob("*")}
    cgroups = {
        str(path) for top in {V1, V2} if top.is_dir() for path in top.iterdir() if path.is_dir()
    }
    return {name for name in namespaces | cgroups if "demo" in name}


def test_demo_shows_every_outcome_and_cleans_up() -> None:
    before = left_behind()
    sysctl = Path("/proc/sys/net/ipv4/tcp_syn_retries").read_text()
    done = subprocess.run(
        [sys.executable, ROOT / "tools/demo.py"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "demo-client" in line]
    results = [
        next(
            word
            for word in ("ok", "ECONNREFUSED", "ENETUNREACH", "ETIMEDOUT")
            if f" {word} " in row
        )
        for row in rows
    ]
    assert sorted(results) == sorted(["ok"] * 4 + ["ECONNREFUSED", "ENETUNREACH", "ETIMEDOUT"])
    assert any("2001:db8::2" in row for row in rows)
    why = done.stdout.partition("cgnet why")[2]
    findings = [line.split()[2] for line in why.splitlines() if line[:1].isdecimal()]
    assert sorted(findings) == ["no-listener", "no-route", "syn-unanswered"]
    assert left_behind() == before
    assert Path("/proc/sys/net/ipv4/tcp_syn_retries").read_text() == sysctl
