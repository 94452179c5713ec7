# SPDX-License-Identifier: BSD-2-Clause
"""Who connected: cgroups of group and v2, created late, removed and created again, and processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from harness import (
    HIERARCHIES,
    HIERARCHY,
    HIERARCHY_NAME,
    V1,
    V2,
    Workload,
    check,
    new_cgroup,
    remove_cgroup,
    run,
    tracing,
    unique,
    wait_until,
)

if TYPE_CHECKING:
    from pathlib import Path


def inner(path: Path, hierarchy: Path) -> str:
    return f"/{path.relative_to(hierarchy)}"


def test_v1_path_as_mounted(hook: str, v1: Path, port: int) -> None:
    with tracing("--hook", hook, "--cgroup", str(v1)) as tracer:
        run("connect", "127.0.0.1", port)  # not in it
        made = run("connect", "127.0.0.1", port, 2, cgroups=(v1,))
        rows = check(tracer, made, hierarchy="memory", cgroup=inner(v1, V1))
        assert tracer.rows() == rows
    assert rows[0]["cgroup_id"] == str(v1.stat().st_ino)


def test_v2_path_as_mounted(hook: str, v2: Path, port: int) -> None:
    with tracing("--hook", hook, "--cgroup", str(v2)) as tracer:
        run("connect", "127.0.0.1", port)
        made = run("connect", "127.0.0.1", port, 2, cgroups=(v2,))
        rows = check(tracer, made, hierarchy="v2", cgroup=inner(v2, V2))
        assert tracer.rows() == rows


def test_path_inside_the_hierarchy(group: Path, port: int) -> None:
    with tracing("--cgroup", inner(group, HIERARCHY)) as tracer:
        made = run("connect", "127.0.0.1", port, cgroups=(group,))
        check(tracer, made, hierarchy=HIERARCHY_NAME, cgroup=inner(group, HIERARCHY))


def test_hierarchy_names_owners(v2: Path, port: int) -> None:
    with tracing("--hierarchy", "v2") as tracer:
        made = run("connect", "127.0.0.1", port, cgroups=(v2,))
        check(tracer, made, hierarchy="v2", cgroup=inner(v2, V2))


def test_without_a_filter_everybody_is_shown_with_a_cgroup(
    hook: str, group: Path, port: int
) -> None:
    with tracing("--hook", hook) as tracer:
        made = run("connect", "127.0.0.1", port, cgroups=(group,))
        check(tracer, made, hierarchy=HIERARCHY_NAME, cgroup=inner(group, HIERARCHY))


def test_two_hierarchies_are_or_and_ids_are_not_confused(v1: Path, v2: Path, port: int) -> None:
    with tracing("--cgroup", str(v1), "--cgroup", str(v2)) as tracer:
        first = run("connect", "127.0.0.1", port, cgroups=(v1,))
        second = run("connect", "127.0.0.1", port, cgroups=(v2,))
        run("connect", "127.0.0.1", port)
        assert len(check(tracer, first + second)) == len(tracer.rows())


def test_subtree_that_is_there_at_the_start(hook: str, group: Path, port: int) -> None:
    below = group / "a" / "b"
    below.mkdir(parents=True)
    with tracing("--hook", hook, "--cgroup", str(group)) as tracer:
        made = run("connect", "127.0.0.1", port, cgroups=(below,))
        check(tracer, made, cgroup=inner(below, HIERARCHY))


@pytest.mark.parametrize("hierarchy", HIERARCHIES, ids=lambda path: path.name)
def test_subtree_that_is_born_late(hook: str, hierarchy: Path, port: int) -> None:
    with new_cgroup(hierarchy) as top, tracing("--hook", hook, "--cgroup", str(top)) as tracer:
        below = top / "late" / "later"
        below.mkdir(parents=True)
        made = run("connect", "127.0.0.1", port, cgroups=(below,))
        check(tracer, made, cgroup=inner(below, hierarchy))


def test_cgroups_that_live_for_one_connection_keep_their_names(group: Path, port: int) -> None:
    """Each is removed right after its only process ended: nothing can look it up any more."""
    with tracing("--cgroup", str(group)) as tracer:
        made = []
        for number in range(20):
            below = group / f"short-{number}"
            below.mkdir()
            (row,) = run("connect", "127.0.0.1", port, cgroups=(below,))
            below.rmdir()
            made.append(row | {"cgroup": inner(below, HIERARCHY)})
        check(tracer, made)


def test_sibling_with_the_same_prefix_is_not_selected(group: Path, port: int) -> None:
    with (
        new_cgroup(HIERARCHY, f"{group.name}-more") as sibling,
        tracing("--cgroup", str(group)) as tracer,
    ):
        run("connect", "127.0.0.1", port, cgroups=(sibling,))
        check(tracer, run("connect", "127.0.0.1", port, cgroups=(group,)))
        assert len(tracer.rows()) == 1


def test_removed_cgroup_is_told_and_taken_up_again(port: int) -> None:
    name = unique()
    with new_cgroup(HIERARCHY, name) as path, tracing("--cgroup", str(path)) as tracer:
        first = run("connect", "127.0.0.1", port, cgroups=(path,))
        remove_cgroup(path)
        tracer.wait_said("was removed")
        path.mkdir()
        tracer.wait_said("is there again")
        second = run("connect", "127.0.0.1", port, cgroups=(path,))
        check(tracer, first + second)


def test_a_name_that_is_no_utf8_is_taken_up_again(group: Path, port: int) -> None:
    with new_cgroup(group, b"\xff") as path, tracing("--cgroup", str(path)) as tracer:
        path.rmdir()
        tracer.wait_said("was removed")
        path.mkdir()
        tracer.wait_said("is there again")
        check(tracer, run("connect", "127.0.0.1", port, cgroups=(path,)))


def test_a_process_that_moves_is_where_it_was_when_it_connected(group: Path, port: int) -> None:
    with new_cgroup(HIERARCHY) as other, tracing("--cgroup", str(group)) as tracer:
        workload = Workload("connect", "127.0.0.1", port, cgroups=(group,))
        (other / "cgroup.procs").write_text(str(workload.process.pid))
        workload.go()
        check(tracer, run("connect", "127.0.0.1", port, cgroups=(group,)))
        assert len(tracer.rows()) == 1


def test_pid(hook: str, port: int) -> None:
    workload = Workload("connect", "127.0.0.1", port, 2)
    with tracing("--hook", hook, "--pid", str(workload.process.pid)) as tracer:
        run("connect", "127.0.0.1", port)
        made = workload.go()
        assert {row["pid"] for row in made} == {workload.process.pid}
        assert len(check(tracer, made)) == len(tracer.rows())


def test_pid_and_cgroup_are_both_asked_for(group: Path, port: int) -> None:
    inside = Workload("connect", "127.0.0.1", port, cgroups=(group,))
    outside = Workload("connect", "127.0.0.1", port)
    pids = [str(each.process.pid) for each in (inside, outside)]
    arguments = ["--pid", pids[0], "--pid", pids[1], "--cgroup", str(group)]
    with tracing(*arguments) as tracer:
        outside.go()
        check(tracer, inside.go())
        assert len(tracer.rows()) == 1


def test_hostile_names_are_text_in_json(group: Path, port: int) -> None:
    name = b"=cmd \x1b[31m[red]\xff"  # a cgroup's name has neither slash nor newline
    with new_cgroup(group, name) as path, tracing("--cgroup", str(group)) as tracer:
        made = run("hostile_comm", port, cgroups=(path,))
        (row,) = check(tracer, made)
    assert row["comm"] == "=\x1b[31m[/red]\n\\xff"
    shown = name.decode(errors="backslashreplace")
    assert row["cgroup"] == f"{inner(group, HIERARCHY)}/{shown}"
    assert os.fsencode(path.name) == name


@pytest.mark.parametrize("output", ["table", "wide", "csv"])
def test_hostile_names_are_escaped_for_people(group: Path, port: int, output: str) -> None:
    with (
        new_cgroup(group, b"=\x1b[31m[red]\xff") as path,
        tracing("--cgroup", str(path), output=output) as tracer,
    ):
        run("hostile_comm", port, cgroups=(path,))
        wait_until("a row", lambda: len(tracer.lines) > 1)
        tracer.stop()
    assert len(tracer.lines) == 2, tracer.lines
    assert tracer.lines[1][:-1].isprintable()
    assert "[/red]" in tracer.lines[1]
    assert ",=" not in tracer.lines[1]
