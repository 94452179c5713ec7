# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cgnet import cgroups, filters
from cgnet._layouts import CGROUP_KEY, CONFIG, CgroupController, SyncErrors
from cgnet.cgroups import Hierarchy
from cgnet.errors import CgnetError, LibbpfError, UsageError
from cgnet.filters import Filters, cgroup_key

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [member.name for member in CONFIG.members]


class Maps:
    """Stands for an object: remembers sizes and entries of its maps."""

    def __init__(self, full_at: int = 1 << 30) -> None:
        self.full_at = full_at
        self.sizes: dict[str, int] = {}
        self.entries: list[bytes] = []

    def resize(self, name: str, max_entries: int) -> None:
        self.sizes[name] = max_entries

    def map(self, _name: str) -> Any:
        return self

    def update(self, key: bytes, _value: bytes) -> None:
        if len(self.entries) >= self.full_at:
            raise LibbpfError("no room", errno.E2BIG)
        self.entries.append(key)


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Hierarchy]:
    """Six made-up hierarchies, the memory one first; each has the groups /a, /a/b and /c."""
    found = []
    names = ("memory", "cpu", "pids", "blkio", "freezer", "v2")
    for number, name in enumerate(names):
        (tmp_path / name / "a/b").mkdir(parents=True)
        (tmp_path / name / "c").mkdir()
        found.append(Hierarchy(number + 1, name, (name,), tmp_path / name, "/"))
    monkeypatch.setattr(cgroups, "hierarchies", lambda: found)
    monkeypatch.setattr(cgroups, "cgroup_id", lambda path: path.stat().st_ino)
    return found


def config(
    made: Filters, sync_errors: SyncErrors = SyncErrors.SYNC_ERRORS_UNSEEN
) -> dict[str, Any]:
    """Return struct config by its members' names; the array as pairs."""
    numbers = CONFIG.packed.unpack(made.config(sync_errors))
    plain = dict(zip(NAMES, numbers, strict=False))
    rest = numbers[len(NAMES) - 1 :]
    return plain | {"hierarchy": list(zip(rest[::2], rest[1::2], strict=True))}


def test_without_filters_the_default_hierarchy_names_and_nothing_is_selected(
    mounted: list[Hierarchy],
) -> None:
    made = config(Filters())
    assert made["hierarchy"][0] == (mounted[0].id, CgroupController.CONTROLLER_MEMORY)
    assert (made["hierarchies"], made["by_cgroup"], made["by_pid"]) == (1, 0, 0)
    assert made["hierarchy"][1:] == [(0, 0)] * (filters.HIERARCHIES - 1)


@pytest.mark.parametrize("how", SyncErrors)
def test_the_kernel_side_is_told_what_sees_early_errors(how: SyncErrors) -> None:
    assert config(Filters(), how)["sync_errors"] == how
    assert config(Filters(pid=[os.getpid()]), how)["by_pid"] == 1


def test_filters_switch_their_look_up_on() -> None:
    assert config(Filters(pid=[os.getpid()]))["by_pid"] == 1
    assert config(Filters(cgroup=["/"]))["by_cgroup"] == 1


def test_a_selected_paths_hierarchy_names_owners(mounted: list[Hierarchy]) -> None:
    made = config(Filters(cgroup=[str(mounted[1].mount / "a")]))
    assert made["hierarchies"] == 1
    assert made["hierarchy"][0] == (mounted[1].id, CgroupController.CONTROLLER_CPU)


def test_a_hierarchy_that_was_asked_for_names_owners_whatever_is_selected(
    mounted: list[Hierarchy],
) -> None:
    made = config(Filters(cgroup=[str(mounted[1].mount / "a")], hierarchy="pids"))
    assert made["hierarchies"] == 2
    assert [pair[0] for pair in made["hierarchy"][:2]] == [mounted[2].id, mounted[1].id]


def test_paths_of_more_hierarchies_than_there_is_room_for_are_refused(
    mounted: list[Hierarchy],
) -> None:
    paths = [str(each.mount) for each in mounted]
    assert config(Filters(cgroup=paths[:4]))["hierarchies"] == 4
    with pytest.raises(UsageError, match="more than 4 hierarchies"):
        Filters(cgroup=paths[:5])


@pytest.mark.usefixtures("mounted")
def test_maps_of_unused_filters_stay_small() -> None:
    unused, used = Maps(), Maps()
    Filters().resize(unused)
    Filters(cgroup=["/a"], pid=[1, os.getpid()]).resize(used)
    assert unused.sizes == {"selected_cgroups": 1, "selected_pids": 1}
    assert used.sizes == {"selected_cgroups": filters.SELECTED_CGROUPS, "selected_pids": 2}


def test_a_selected_cgroup_is_marked_with_all_below_it(mounted: list[Hierarchy]) -> None:
    maps, top = Maps(), mounted[0].mount / "a"
    Filters(cgroup=["/a"]).fill(maps)
    assert maps.entries == [
        cgroup_key(mounted[0].id, path.stat().st_ino) for path in (top, top / "b")
    ]


@pytest.mark.usefixtures("mounted")
def test_selected_processes_are_marked() -> None:
    maps = Maps()
    Filters(pid=[os.getpid()]).fill(maps)
    assert maps.entries == [os.getpid().to_bytes(4, sys.byteorder)]


@pytest.mark.usefixtures("mounted")
def test_more_cgroups_than_there_is_room_for_are_told() -> None:
    with pytest.raises(CgnetError, match=r"--cgroup .*/a: more than \d+ cgroups"):
        Filters(cgroup=["/a"]).fill(Maps(full_at=1))


def test_a_cgroup_that_vanishes_meanwhile_is_passed_over(
    mounted: list[Hierarchy], monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanishing(path: Path) -> int:
        if path.name == "b":
            raise FileNotFoundError
        return path.stat().st_ino

    monkeypatch.setattr(cgroups, "cgroup_id", vanishing)
    maps = Maps()
    Filters(cgroup=["/a"]).fill(maps)
    top = mounted[0].mount / "a"
    assert maps.entries == [cgroup_key(mounted[0].id, top.stat().st_ino)]


def test_a_given_path_that_is_made_again_is_marked_again_and_no_other(
    mounted: list[Hierarchy],
) -> None:
    maps, said = Maps(), []
    made = Filters(cgroup=["/a"])
    for hierarchy, path in ((mounted[0].id, "/c"), (mounted[1].id, "/a"), (mounted[0].id, "/a/b")):
        made.follow(maps, hierarchy, path, said.append)
    assert (maps.entries, said) == ([], [])
    made.follow(maps, mounted[0].id, "/a", said.append)
    assert len(maps.entries) == 2
    assert said == [f"--cgroup {mounted[0].mount}/a: it is there again"]


def test_a_given_path_is_known_in_its_hierarchy_alone(mounted: list[Hierarchy]) -> None:
    made = Filters(cgroup=["/a"])
    assert made.is_given(mounted[0].id, "/a") == mounted[0].mount / "a"
    assert made.is_given(mounted[1].id, "/a") is None
    assert made.is_given(mounted[0].id, "/a/b") is None


def test_a_key_is_the_id_the_hierarchy_and_no_rubbish() -> None:
    assert CGROUP_KEY.packed.unpack(cgroup_key(7, 1 << 63)) == (1 << 63, 7, 0)
