# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes import FakeMap

from cgnet.errors import CgnetError
from cgnet.filters import cgroup
from cgnet.filters.cgroup import CgroupFilter, Mark, cgroup_key
from cgnet.owners import cgroups
from cgnet.owners.cgroups import Hierarchy
from cgnet.records._layouts import CGROUP_KEY, CGROUP_MARK, CgroupMarks, Undecided

if TYPE_CHECKING:
    from collections.abc import Callable

SELECTED, EXCLUDED = cgroup.SELECTED, cgroup.EXCLUDED
BOTH = SELECTED | EXCLUDED
NEW, WANTED = Undecided.UNDECIDED_NEW, Undecided.UNDECIDED_SELECTED
MEMORY = 1  # the id of the first made-up hierarchy


def marks(hierarchy: Hierarchy, selected: FakeMap) -> dict[str, Mark]:
    """Return what a map says of the directories that are there, by their inner path."""
    found = {}
    for path in cgroups.subtree(hierarchy.mount):
        value = selected.entries.get(cgroup_key(hierarchy.id, path.stat().st_ino))
        if value:
            marks, given = CGROUP_MARK.packed.unpack(value)
            found[hierarchy.inner_path(path)] = Mark(marks & ~CgroupMarks.CGROUP_SETTLED, given)
    return found


@pytest.mark.parametrize(
    ("values", "path", "expected"),
    [
        (["/a"], "/a", Mark(SELECTED, 1)),
        (["/a"], "/a/b/c", Mark(SELECTED, 1)),
        (["/a"], "/c", Mark(0, 0)),
        (["/a"], "/", Mark(0, 0)),
        (["/a"], "/ab", Mark(0, 0)),
        (["/"], "/c", Mark(SELECTED, 1)),
        (["/", "/a/b", "/a"], "/a/b/c", Mark(SELECTED, 2)),
        (["/", "/a/b", "/a"], "/a/c", Mark(SELECTED, 3)),
        (["/c", "/a*"], "/ax/y", Mark(SELECTED, 2)),
        (["/a", "!/a/b"], "/a/b/c", Mark(BOTH, 1)),
        (["!/a", "/a/b"], "/a/b", Mark(BOTH, 2)),
        (["!/a", "/a/b"], "/a/x", Mark(EXCLUDED, 0)),
        (["!/a/*", "/a"], "/a", Mark(SELECTED, 2)),
        (["!/a/*", "/a"], "/a/x", Mark(BOTH, 2)),
        (["/a/**", "!/**/b"], "/a/x/b/y", Mark(BOTH, 1)),
        (["/*"], "/", Mark(0, 0)),
        (["/**"], "/", Mark(SELECTED, 1)),
    ],
)
def test_a_mark_is_that_of_all_above_and_the_deepest_that_includes_is_given(
    made: Callable[..., CgroupFilter], values: list[str], path: str, expected: Mark
) -> None:
    assert made(*values).mark(MEMORY, path) == expected


@pytest.mark.parametrize(
    ("values", "undecided", "path", "expected"),
    [
        (["/a", "/x*"], NEW, "/xy", 2),
        (["/a", "/x*"], NEW, "/xy/z", 2),
        (["/a", "/x*"], NEW, "/y", None),
        (["/a", "/x*"], NEW, None, None),
        (["/a", "/x*"], WANTED, "/a/new", 1),
        (["/a", "/x*"], WANTED, "/elsewhere", 0),  # selected by another hierarchy's path
        (["/a", "/x*"], WANTED, None, 0),
        (["/a", "!/**/x*"], WANTED, "/a/xy", None),
        (["/a", "!/**/x*"], WANTED, "/a/xy/z", None),
        (["/a", "!/**/x*"], WANTED, "/a/z", 1),
        (["/x*", "!/xy"], NEW, "/xz", 1),
        (["!/x*"], WANTED, "/y", 0),
        (["!/x*"], WANTED, "/x", None),
    ],
)
def test_an_owner_that_the_kernel_side_left_open_is_decided_by_its_path(
    made: Callable[..., CgroupFilter],
    mounted: list[Hierarchy],
    values: list[str],
    *,
    undecided: int,
    path: str | None,
    expected: int | None,
) -> None:
    (mounted[0].mount / "xy").mkdir()
    assert made(*values).decide(undecided, MEMORY, path) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], {}),
        (["/a"], {"/a": (1, 1), "/a/b": (1, 1)}),
        (["/a/b", "/a"], {"/a": (1, 2), "/a/b": (1, 1)}),
        (["/a", "!/a/b"], {"/a": (1, 1), "/a/b": (3, 1)}),
        (["!/a", "/a/b"], {"/a": (2, 0), "/a/b": (3, 2)}),
        (["/c", "!/a"], {"/a": (2, 0), "/a/b": (2, 0), "/c": (1, 1)}),
        (["/*/b"], {"/a/b": (1, 1)}),
        (["/*", "!/c"], {"/a": (1, 1), "/a/b": (1, 1), "/c": (3, 1)}),
        (["!/**/b"], {"/a/b": (2, 0)}),
        (["/nosuch*"], {}),
        (["/"], {"/": (1, 1), "/a": (1, 1), "/a/b": (1, 1), "/c": (1, 1)}),
    ],
)
def test_what_is_there_is_marked_with_all_below_it(
    made: Callable[..., CgroupFilter],
    mounted: list[Hierarchy],
    values: list[str],
    expected: dict[str, tuple[int, int]],
) -> None:
    selected = FakeMap()
    made(*values).fill(selected)
    assert marks(mounted[0], selected) == expected
    assert len(selected.entries) == len(expected)


def test_below_a_mount_that_shows_a_part_paths_are_those_of_the_whole(
    mounted: list[Hierarchy],
) -> None:
    part = mounted[0]._replace(root="/docker/x")
    for values in (["/dock*"], [f"{part.mount}/*"], ["/docker/x/*"]):
        selected = FakeMap()
        filter_ = CgroupFilter(values, [part], part)
        filter_.fill(selected)
        found = marks(part, selected)
        assert {"/docker/x/a", "/docker/x/a/b", "/docker/x/c"} <= set(found)
        assert all(mark == filter_.mark(MEMORY, path) for path, mark in found.items())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["/nosuch*"], ["/nosuch*"]),
        (["/a*", "/*/b", "/c"], []),
        (["/x?", "/a*", "/**/z"], ["/x?", "/**/z"]),
        (["!/nosuch*"], []),
        (["/**"], []),
    ],
)
def test_patterns_that_match_nothing_are_told_apart(
    made: Callable[..., CgroupFilter], values: list[str], expected: list[str]
) -> None:
    assert made(*values).unmatched(MEMORY, ["/", "/a", "/a/b", "/c"]) == expected


def created(filter_: CgroupFilter, selected: FakeMap, path: Path, inner: str) -> list[str]:
    """Make a cgroup as the kernel would tell it, and return what the user is told."""
    path.mkdir(exist_ok=True)
    said: list[str] = []
    filter_.created(selected, MEMORY, path.stat().st_ino, inner, said.append)
    return said


def test_a_new_cgroup_gets_the_mark_of_its_path(
    made: Callable[..., CgroupFilter], mounted: list[Hierarchy]
) -> None:
    selected, mount = FakeMap(), mounted[0].mount
    filter_ = made("/a", "/x*", "!/**/z")
    for path in ("x1", "x1/z", "y", "a/new"):
        assert created(filter_, selected, mount / path, f"/{path}") == []
    assert marks(mounted[0], selected) == {
        "/x1": (SELECTED, 2),
        "/x1/z": (BOTH, 2),
        "/a/new": (SELECTED, 1),
    }


def test_a_new_cgroup_that_matches_nothing_is_no_longer_undecided(
    made: Callable[..., CgroupFilter], mounted: list[Hierarchy]
) -> None:
    new = mounted[0].mount / "new"
    new.mkdir()
    selected = FakeMap()
    selected.update(cgroup_key(MEMORY, new.stat().st_ino), CGROUP_MARK.packed.pack(4, 0))
    assert created(made("/x*"), selected, new, "/new") == []
    assert selected.entries == {}


def test_also_without_patterns_a_new_cgroup_is_decided(
    made: Callable[..., CgroupFilter], mounted: list[Hierarchy]
) -> None:
    selected, mount = FakeMap(), mounted[0].mount
    filter_ = made("/a", "!/a/b")
    for path in ("a/new", "a/b/new", "new"):
        (mount / path).mkdir()
        undecided = CGROUP_MARK.packed.pack(4, 0)
        selected.update(cgroup_key(MEMORY, (mount / path).stat().st_ino), undecided)
        assert created(filter_, selected, mount / path, f"/{path}") == []
    assert marks(mounted[0], selected) == {"/a/new": (SELECTED, 1), "/a/b/new": (BOTH, 1)}
    written = [CGROUP_MARK.packed.unpack(value)[0] for value in selected.entries.values()]
    assert all(each & CgroupMarks.CGROUP_SETTLED for each in written)  # programs may keep it


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["/a"], {"/a": (1, 1), "/a/b": (1, 1)}),
        (["!/", "/a"], {"/a": (3, 2), "/a/b": (3, 2)}),
        (["!/*", "/a"], {"/a": (3, 2), "/a/b": (3, 2)}),
        (["/a", "!/a/b"], {"/a": (1, 1), "/a/b": (3, 1)}),
    ],
)
def test_a_given_path_that_is_made_again_is_marked_again_and_told(
    made: Callable[..., CgroupFilter],
    mounted: list[Hierarchy],
    values: list[str],
    expected: dict[str, tuple[int, int]],
) -> None:
    selected = FakeMap()
    said = created(made(*values), selected, mounted[0].mount / "a", "/a")
    assert marks(mounted[0], selected) == expected
    assert said == ["--cgroup /a: it is there again"]


def test_the_same_path_in_another_hierarchy_is_another_cgroup(
    made: Callable[..., CgroupFilter],
) -> None:
    selected, said, filter_ = FakeMap(), list[str](), made("/a", "/x*")
    filter_.created(selected, MEMORY + 1, 5, "/a", said.append)
    filter_.created(selected, MEMORY + 1, 6, "/xy", said.append)
    assert (selected.entries, said) == ({}, [])
    assert filter_.is_given(MEMORY, "/a") == "/a"
    assert filter_.is_given(MEMORY + 1, "/a") is None
    assert filter_.is_given(MEMORY, "/a/b") is None


@pytest.mark.parametrize("given", ["/x*", "/x1"])
def test_a_new_cgroup_without_room_is_told_and_the_run_goes_on(
    made: Callable[..., CgroupFilter],
    mounted: list[Hierarchy],
    caplog: pytest.LogCaptureFixture,
    given: str,
) -> None:
    new = mounted[0].mount / "x1"
    new.mkdir()
    created(made(given), FakeMap(full_at=0), new, "/x1")
    assert "--cgroup: /x1 isn't followed" in caplog.text


def test_more_cgroups_than_there_is_room_for_are_told(made: Callable[..., CgroupFilter]) -> None:
    with pytest.raises(CgnetError, match=r"--cgroup .*/a.*: more than \d+ cgroups"):
        made("/a").fill(FakeMap(full_at=1))


@pytest.mark.parametrize(
    ("error", "said"),
    [(FileNotFoundError(2, "gone"), ""), (OSError(36, "File name too long"), "name too long")],
)
def test_a_cgroup_whose_id_cannot_be_had_is_passed_over(
    made: Callable[..., CgroupFilter],
    mounted: list[Hierarchy],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    error: OSError,
    said: str,
) -> None:
    def failing(path: Path) -> int:
        if path.name == "a":
            raise error
        return path.stat().st_ino

    monkeypatch.setattr(cgroups, "cgroup_id", failing)
    selected = FakeMap()
    made("/a").fill(selected)
    assert marks(mounted[0], selected) == {"/a/b": (SELECTED, 1)}
    assert [record.levelno for record in caplog.records] == ([logging.ERROR] if said else [])
    assert said in caplog.text


def test_ten_thousand_paths_are_marked_in_well_below_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hierarchy = Hierarchy(MEMORY, "memory", ("memory",), Path("/mnt"), "/")
    count = 10_000
    tops = [Path(f"/mnt/pods/p{number}") for number in range(count)]
    monkeypatch.setattr(cgroups, "resolve", lambda value, *_: (hierarchy, Path("/mnt" + value)))
    monkeypatch.setattr(cgroups, "subtree", lambda top: iter([top, top / "c"]))
    monkeypatch.setattr(cgroups, "cgroup_id", lambda path: abs(hash(path)))
    began = time.process_time()
    filter_ = CgroupFilter([f"/pods/p{number}" for number in range(count)], [hierarchy], hierarchy)
    selected = FakeMap()
    filter_.fill(selected)
    found = [filter_.mark(MEMORY, f"/pods/p{number}/c").given for number in range(count)]
    assert (
        time.process_time() - began < 5
    )  # some 0.5 s when nothing else runs; each against each would be minutes
    assert found == [*range(1, count + 1)]
    assert len(selected.entries) == 2 * len(tops)


def test_a_key_is_the_id_the_hierarchy_and_no_rubbish() -> None:
    assert CGROUP_KEY.packed.unpack(cgroup_key(7, 1 << 63)) == (1 << 63, 7, 0)
