# SPDX-License-Identifier: BSD-2-Clause
"""--cgroup: negation, patterns, several hierarchies, and cgroups that don't live long."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
from compare import inner, only
from harness import HIERARCHY, V2, Row, Workload, cgnet, run, tracing, wait_until
from kernel_maps import entries
from raw_peer import PEER, peer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# The forgetting of what was removed, waited for in a test.
SOON = """
import cgnet.cli, cgnet.run.cgroup_watch
cgnet.run.cgroup_watch.FORGET_CGROUP_AFTER_S = 0.2
cgnet.cli.main()
"""


def tree(top: Path, *names: str) -> list[Path]:
    groups = [top / name for name in names]
    for group in groups:
        group.mkdir(parents=True)
    return groups


def chain(lists: Iterable[list[Row]]) -> list[Row]:
    return list(itertools.chain.from_iterable(lists))


def connects(port: int, groups: Iterable[Path]) -> dict[str, list[Row]]:
    """One connection from each cgroup."""
    return {str(group): run("connect", "127.0.0.1", port, cgroups=(group,)) for group in groups}


def compare(arguments: list[str], port: int, wanted: list[Path], others: list[Path]) -> None:
    """Only what connects in some of the cgroups is shown."""
    with tracing(*arguments) as tracer:
        made = connects(port, [*wanted, *others])
        expected = [row for group in wanted for row in made[str(group)]]
        shown = only(tracer, expected, chain(made.values()))
    paths = {row["pid"]: row["cgroup"] for row in shown}
    for group in wanted:
        assert paths[made[str(group)][0]["pid"]] == inner(group, HIERARCHY)


# -- negation


def test_excluded_subtree(hook: str, group: Path, port: int) -> None:
    tree(group, "a/b", "ab")
    arguments = ["--hook", hook, "--cgroup", str(group), "--cgroup", f"!{group}/a"]
    compare(arguments, port, [group, group / "ab"], [group / "a", group / "a/b", HIERARCHY])


def test_excluded_only(hook: str, group: Path, port: int) -> None:
    tree(group, "a/b", "ab")
    arguments = ["--hook", hook, "--cgroup", f"!{inner(group, HIERARCHY)}/a"]
    compare(arguments, port, [group, group / "ab"], [group / "a", group / "a/b"])


def test_excluded_comes_last_whatever_the_order(group: Path, port: int) -> None:
    tree(group, "a/b")
    arguments = ["--cgroup", f"!{group}/a", "--cgroup", f"{group}/a/b", "--cgroup", str(group)]
    compare(arguments, port, [group], [group / "a", group / "a/b"])


def test_excluded_is_handed_down_to_what_is_born(hook: str, group: Path, port: int) -> None:
    tree(group, "a")
    arguments = ["--hook", hook, "--cgroup", str(group), "--cgroup", f"!{group}/a"]
    with tracing(*arguments) as tracer:
        below, beside = tree(group, "a/late/later", "b/late")
        made = connects(port, [below, beside])
        only(tracer, made[str(beside)], made[str(below)])


def test_excluded_by_another_hierarchy(hook: str, v1: Path, v2: Path, port: int) -> None:
    with tracing("--hook", hook, "--cgroup", str(v1), "--cgroup", f"!{v2}") as tracer:
        others = run("connect", "127.0.0.1", port, cgroups=(v1, v2))
        others += run("connect", "127.0.0.1", port, cgroups=(v2,))
        only(tracer, run("connect", "127.0.0.1", port, cgroups=(v1,)), others)


def test_two_hierarchies_are_or(hook: str, v1: Path, v2: Path, port: int) -> None:
    with tracing("--hook", hook, "--cgroup", str(v2), "--cgroup", str(v1)) as tracer:
        made = [
            run("connect", "127.0.0.1", port, cgroups=each) for each in ((v1,), (v2,), (v1, v2))
        ]
        shown = only(tracer, chain(made), run("connect", "127.0.0.1", port))
    named = {"/"} if V2 != HIERARCHY else set()
    assert {row["hierarchy"] for row in shown} == {"v2"}
    assert {row["cgroup"] for row in shown} == named | {inner(v2, V2)}


# -- patterns


class Pattern(NamedTuple):
    patterns: tuple[str, ...]  # below the test's cgroup
    wanted: tuple[str, ...]
    others: tuple[str, ...]


NAMES = ("pod1/x", "pod1/y", "pod2/x", "pod10/x", "app/pod3/x", "app/deep/pod4", "pod1/x/below")
PATTERNS = (
    Pattern(("*/x",), ("pod1/x", "pod2/x", "pod10/x", "pod1/x/below"), ("pod1/y", "app/pod3/x")),
    Pattern(("pod?",), ("pod1/x", "pod1/y", "pod2/x"), ("pod10/x", "app/pod3/x")),
    Pattern(("pod[12]/x",), ("pod1/x", "pod2/x"), ("pod10/x", "pod1/y")),
    Pattern(("**/pod[!4]",), ("pod1/y", "app/pod3/x"), ("pod10/x", "app/deep/pod4")),
    Pattern(("**/x", "!pod1*"), ("pod2/x", "app/pod3/x"), ("pod1/x", "pod10/x", "app/deep/pod4")),
    Pattern(("!**/x",), ("pod1/y", "app/deep/pod4"), ("pod1/x", "app/pod3/x", "pod1/x/below")),
    Pattern(("", "!**/x"), ("pod1/y", "app/deep/pod4"), ("pod1/x", "app/pod3/x", "pod1/x/below")),
)


def options_of(pattern: Pattern, top: str) -> list[str]:
    words = [
        f"!{top}/{each.removeprefix('!')}" if each.startswith("!") else f"{top}/{each}"
        for each in pattern.patterns
    ]
    return [option for word in words for option in ("--cgroup", word.rstrip("/"))]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda each: " ".join(each.patterns))
@pytest.mark.parametrize("form", ["mounted", "inside"])
def test_pattern(group: Path, port: int, pattern: Pattern, form: str) -> None:
    tree(group, "app/deep/pod4", "app/pod3/x", "pod1/y", "pod10/x", "pod1/x/below", "pod2/x")
    top = str(group) if form == "mounted" else inner(group, HIERARCHY)
    wanted, others = ([group / name for name in each] for each in pattern[1:])
    if not all(each.startswith("!") for each in pattern.patterns):
        others.append(HIERARCHY)
    compare(options_of(pattern, top), port, wanted, others)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda each: " ".join(each.patterns))
def test_pattern_waits_for_what_is_born(
    hook: str, group: Path, port: int, pattern: Pattern
) -> None:
    with tracing("--hook", hook, *options_of(pattern, inner(group, HIERARCHY))) as tracer:
        tree(group, "app/deep/pod4", "app/pod3/x", "pod1/y", "pod10/x", "pod1/x/below", "pod2/x")
        made = connects(port, [group / name for name in pattern.wanted + pattern.others])
        wanted = [row for name in pattern.wanted for row in made[str(group / name)]]
        only(tracer, wanted, chain(made.values()))


def test_pattern_inside_another_hierarchy(v1: Path, v2: Path, port: int) -> None:
    """A pattern means the hierarchy that --hierarchy names."""
    tree(v1, "a")
    tree(v2, "a")
    with tracing("--hierarchy", "v2", "--cgroup", f"{inner(v2, V2)}/*") as tracer:
        made = connects(port, [v1 / "a", v2 / "a", v2])
        (row,) = only(tracer, made[str(v2 / "a")], chain(made.values()))
    assert (row["hierarchy"], row["cgroup"]) == ("v2", inner(v2 / "a", V2))


def test_literal_path_that_is_not_there_is_refused(group: Path) -> None:
    done = cgnet("connect", "--cgroup", f"{group}/no", "--duration", "0.1")
    assert done.returncode == 2
    assert "no such cgroup" in done.stderr


# -- cgroups that come and go


@pytest.mark.parametrize("form", ["literal", "pattern", "pattern below", "excluded"])
def test_cgroups_that_live_for_some_milliseconds(
    hook: str, group: Path, port: int, form: str
) -> None:
    """Nothing but the kernel's own path can tell that they match."""
    top = inner(group, HIERARCHY)
    (inside, outside) = tree(group, "in", "out")
    options = {
        "literal": [f"{top}/in"],
        "pattern": [f"{top}/i[n]/g*"],
        "pattern below": [f"{top}/i*"],
        "excluded": [top, f"!{top}/*/g*", f"{top}/in"],
    }[form]
    arguments = [word for option in options for word in ("--cgroup", option)]
    with tracing("--hook", hook, *arguments) as tracer:
        made = run("short_lived", f"{inside}|{outside}", 40, port)
        rows = tracer.stop()
    pids = {row["pid"] for row in made}
    shown = {row["pid"]: row["cgroup"] for row in rows if row["pid"] in pids}
    wanted = [row for row in made if row["parent"] == str(inside)]
    paths = {row["pid"]: f"{top}/in/{row['name']}" for row in wanted}
    assert shown == ({} if form == "excluded" else paths)
    assert len(paths) == 20


def test_pattern_of_a_hierarchy_that_names_no_owners_is_refused(v1: Path, v2: Path) -> None:
    """The path of a new cgroup couldn't be looked at in time."""
    done = cgnet("connect", "--hierarchy", "memory", "--cgroup", str(v1), "--cgroup", f"{v2}/i*")
    assert done.returncode == 2
    assert "--hierarchy v2" in done.stderr


def test_removed_while_an_attempt_is_under_way(hook: str, group: Path) -> None:
    """The socket outlives its cgroup, and is still of it."""
    with (
        peer("silence") as (netns, answering),
        tracing("--hook", hook, "--cgroup", str(group)) as tracer,
    ):
        below = group / "gone"
        below.mkdir()
        workload = Workload("held", PEER, 80, cgroups=(below,), netns=netns)
        workload.begin()
        wait_until("a SYN", lambda: answering.syns)
        (HIERARCHY / "cgroup.procs").write_text(str(workload.process.pid))
        below.rmdir()
        workload.begin()
        (row,) = only(tracer, workload.finish(), [])
    assert (row["cgroup"], row["result"]) == (f"{inner(group, HIERARCHY)}/gone", "aborted")


@pytest.mark.parametrize("pattern", ["", "/g*"], ids=["literal", "pattern"])
def test_thousand_cgroups_made_and_removed(hook: str, group: Path, port: int, pattern: str) -> None:
    """None is missed, and none is kept once its time is over."""
    program = (sys.executable, "-c", SOON)
    with tracing("--hook", hook, "--cgroup", f"{group}{pattern}", program=program) as tracer:
        made = run("short_lived", str(group), 1000, port)
        kept = 0 if pattern else 1
        held = lambda: entries(tracer.process.pid, "selected_cgroups")  # noqa: E731
        wait_until(lambda: f"{kept} cgroups, not {held()}", lambda: held() == kept)
        shown = {row["pid"]: row["cgroup"] for row in tracer.stop()}
    names = {row["pid"]: f"{inner(group, HIERARCHY)}/{row['name']}" for row in made}
    assert len(names) == 1000
    assert {pid: path for pid, path in shown.items() if pid in names} == names


def test_given_path_that_flickers_is_not_kept(group: Path, port: int) -> None:
    """Made and removed before user space hears of it."""
    (below,) = tree(group, "a")
    with tracing("--cgroup", str(below), program=(sys.executable, "-c", SOON)) as tracer:
        for _ in range(200):
            below.rmdir()
            below.mkdir()
        wait_until("all are told", lambda: "".join(tracer.said).count("is there again") == 200)
        held = lambda: entries(tracer.process.pid, "selected_cgroups")  # noqa: E731
        wait_until(lambda: f"one cgroup, not {held()}", lambda: held() == 1)
        only(tracer, run("connect", "127.0.0.1", port, cgroups=(below,)), [])
