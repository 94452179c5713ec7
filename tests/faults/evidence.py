# SPDX-License-Identifier: BSD-2-Clause
"""What other commands show while a fault is there: for rules, and for a look at a miss."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from counters import tcp_counters
from harness import cgnet, in_netns, tracing
from lab import Lab, grown
from trial import begin_trouble, wait_seen

if TYPE_CHECKING:
    from pathlib import Path

    from case import Case

TRACERS = {
    "connect": ("--all",),
    "life": ("-i", "2"),
    "drop": (),
    "retrans": (),
}
LISTS = {"sockets": (), "listeners": ("--listeners",), "ports": ("--ports",)}
CONNTRACK = "/proc/net/stat/nf_conntrack"


def _is_ours(row: dict[str, Any], lab: Lab) -> bool:
    if row["type"] in ("summary", "lost"):
        return True
    cgroups = tuple(each.name for each in lab.ends)
    owner = str(row.get("cgroup") or "").strip("/")
    return owner in cgroups or row.get("netns") in {each.inode for each in lab.places}


def _lines(text: str, lab: Lab) -> str:
    rows = [json.loads(line) for line in text.splitlines()]
    return "".join(json.dumps(row) + "\n" for row in rows if _is_ours(row, lab))


def _lists(folder: Path, lab: Lab, when: str) -> None:
    for name, options in LISTS.items():
        text = cgnet("sockets", "-o", "json", *options).stdout
        (folder / f"{name}-{when}.json").write_text(_lines(text, lab))


def save(folder: Path, lab: Lab, seconds: float, **about: Any) -> None:
    """Write the rows of the lab's namespaces and cgroups, and the counters' growth."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(tracing(*options, command=name))
            for name, options in TRACERS.items()
        }
        before = {each.netns: tcp_counters(each.netns) for each in lab.places}
        _lists(folder, lab, "start")
        time.sleep(seconds)
        _lists(folder, lab, "end")
        for name, tracer in running.items():
            tracer.stop()
            (folder / f"{name}.json").write_text(_lines("".join(tracer.lines), lab))
    about["seconds"] = seconds
    about["ends"] = {
        each.name: {"netns": each.place.netns, "inode": each.place.inode, "address": each.address}
        for each in lab.ends
    }
    about["nstat"] = {
        each.netns: grown(before[each.netns], tcp_counters(each.netns)) for each in lab.places
    }
    about["conntrack"] = {each.netns: in_netns(each.netns, "cat", CONNTRACK) for each in lab.places}
    about["inodes"] = {each.netns: each.inode for each in lab.places}
    (folder / "about.json").write_text(json.dumps(about, indent=1))


def save_evidence(case: Case, family: int, folder: Path, seconds: float = 6) -> str:
    """Save the evidence of a fault; return a line about it."""
    try:
        with Lab(family) as lab:
            steps = case.steps(lab)
            next(steps)
            trouble = begin_trouble(steps)
            about: dict[str, Any] = {"case": case.name, "id": case.id, "family": family}
            about |= {"sees": trouble.sees, "daddr": trouble.daddr, "dport": trouble.dport}
            about["owners"] = [each.name for each in trouble.owners]
            save(folder / f"{case.name.replace('/', '--')}-v{family}", lab, seconds, **about)
            wait_seen(trouble)
    except Exception as error:  # noqa: BLE001 - told
        return f"{case.name} v{family}: broken: {type(error).__name__}: {error}"
    return f"{case.name} v{family}: saved"
