# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgnet.errors import UnsupportedError, UsageError
from cgnet.owners import cgroups
from cgnet.owners.cgroups import (
    CgroupNames,
    Hierarchy,
    cgroup_id,
    default_hierarchy,
    hierarchies,
    hierarchy_named,
    subtree,
)
from cgnet.records._layouts import CgroupController
from cgnet.text import decode

if TYPE_CHECKING:
    from collections.abc import Callable

    Proc = Callable[[str, str], list[Hierarchy]]

FS = "/sys/fs/cgroup"
PURE_V2 = ("0::/user.slice\n", f"30 24 0:26 / {FS} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n")
V1_MOUNTS = f"""\
30 24 0:26 / {FS} rw - tmpfs tmpfs rw
31 30 0:27 / {FS}/cpu,cpuacct rw shared:9 master:3 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / {FS}/memory rw - cgroup cgroup rw,memory
33 30 0:29 / {FS}/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""
V1 = ("6:name=systemd:/\n5:memory:/docker/a\n4:cpu,cpuacct:/\n0::/\n", V1_MOUNTS)
HYBRID = (V1[0], V1[1] + f"34 30 0:30 / {FS}/unified rw - cgroup2 cgroup2 rw,nsdelegate\n")
NAMED_ONLY = (
    "1:name=systemd:/\n",
    f"33 30 0:29 / {FS}/systemd rw - cgroup cgroup rw,xattr,name=systemd\n",
)

CPU = Hierarchy(4, "cpu", ("cpu", "cpuacct"), Path(f"{FS}/cpu,cpuacct"), "/")
MEMORY = Hierarchy(5, "memory", ("memory",), Path(f"{FS}/memory"), "/")
UNIFIED = Hierarchy(0, "v2", ("v2",), Path(f"{FS}/unified"), "/")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """Read hierarchies from made-up files."""

    def read(cgroup: str, mountinfo: str) -> list[Hierarchy]:
        (tmp_path / "cgroup").write_text(cgroup, encoding="utf-8")
        (tmp_path / "mountinfo").write_text(mountinfo, encoding="utf-8")
        return hierarchies(tmp_path)

    return read


def test_pure_v2_is_one_hierarchy(proc: Proc) -> None:
    assert proc(*PURE_V2) == [Hierarchy(0, "v2", ("v2",), Path(FS), "/")]


def test_v1_has_one_hierarchy_for_controllers_mounted_together_and_none_for_a_name(
    proc: Proc,
) -> None:
    assert proc(*V1) == [CPU, MEMORY]


def test_hybrid_has_v2_last(proc: Proc) -> None:
    assert proc(*HYBRID) == [CPU, MEMORY, UNIFIED]


def test_the_hosts_own_hierarchies_can_be_read() -> None:
    found = hierarchies()
    assert len({each.id for each in found}) == len(found)
    assert [each.mount.is_dir() for each in found] == [True] * len(found)


def test_octal_escapes_in_mount_paths_are_undone(proc: Proc) -> None:
    line = r"30 24 0:26 /a\040b /mnt/c\011d\134e\012f rw - cgroup2 cgroup2 rw" + "\n"
    (found,) = proc("0::/\n", line)
    assert (found.root, str(found.mount)) == ("/a b", "/mnt/c\td\\e\nf")


def test_a_mount_without_a_source_is_passed_over_or_taken(proc: Proc) -> None:
    """mount(2) takes an empty source, and mountinfo then has two spaces in a row."""
    tmpfs = "77 30 0:40 / /dev/shm/x rw,relatime -  tmpfs  rw\n".replace("-  tmpfs", "- tmpfs")
    assert proc(PURE_V2[0], tmpfs + PURE_V2[1])[0].mount == Path(FS)
    nameless = f"30 24 0:26 / {FS} rw - cgroup2  rw\n"
    assert proc(PURE_V2[0], nameless)[0].mount == Path(FS)


@pytest.mark.parametrize("odd", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_lines_end_at_line_feeds_alone(proc: Proc, odd: str) -> None:
    """A cgroup's or a mount's name may have what else Python takes for the end of a line."""
    name = f"x{odd}9:memory:{odd}y"
    (found,) = proc(f"0::/{name}\n", f"30 24 0:26 / {FS}/{name} rw - cgroup2 cgroup2 rw\n")
    assert (found.id, str(found.mount)) == (0, f"{FS}/{name}")


def test_without_proc_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"/cgroup: No such file.*is /proc mounted\?"):
        hierarchies(tmp_path)


def test_a_hierarchy_that_this_process_is_not_told_of_is_left_out(proc: Proc) -> None:
    assert proc("0::/\n", HYBRID[1]) == [UNIFIED]


def test_of_two_mounts_the_one_that_shows_everything_is_taken(proc: Proc) -> None:
    """In a container that was given the host's mount, its own part is mounted too."""
    part = f"30 24 0:26 /docker/abc {FS} ro - cgroup2 cgroup rw\n"
    whole = f"40 24 0:26 / /host{FS} ro - cgroup2 cgroup rw\n"
    expected = [Hierarchy(0, "v2", ("v2",), Path(f"/host{FS}"), "/")]
    assert proc("0::/\n", whole + part) == expected
    assert proc("0::/\n", part + whole) == expected


@pytest.mark.parametrize(
    ("mounted", "name"),
    [
        ([CPU, MEMORY, UNIFIED], "memory"),
        ([CPU, UNIFIED], "v2"),
        ([UNIFIED], "v2"),
        ([CPU], "cpu"),
    ],
)
def test_the_default_is_v1_memory_else_v2_else_the_first(
    mounted: list[Hierarchy], name: str
) -> None:
    assert default_hierarchy(mounted).name == name


def test_without_any_hierarchy_there_is_no_default() -> None:
    with pytest.raises(UnsupportedError, match="no cgroup hierarchy"):
        default_hierarchy([])


@pytest.mark.parametrize("name", ["cpu", "cpuacct", "memory", "v2"])
def test_a_hierarchy_is_found_by_any_of_its_controllers(name: str) -> None:
    found = hierarchy_named(name, [CPU, MEMORY, UNIFIED])
    assert found.name == name
    assert name in found.controllers
    assert found.controller == CgroupController[f"CONTROLLER_{name.upper()}"]


@pytest.mark.parametrize("name", ["pids", "nosuch", "", "V2", "cpu,cpuacct"])
def test_an_unknown_hierarchy_is_quoted_and_the_usable_ones_named(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        hierarchy_named(name, [CPU, MEMORY, UNIFIED])
    told = f"--hierarchy {name!r}: not mounted here; one of: cpu, memory, v2"
    assert str(raised.value) == told


def test_a_named_hierarchy_is_refused_with_the_nearest_usable_one() -> None:
    with pytest.raises(UsageError, match=r"name=systemd.*nearest usable one is memory"):
        hierarchy_named("name=systemd", [CPU, MEMORY, UNIFIED])


def test_where_only_named_hierarchies_are_mounted_there_is_none_to_name(proc: Proc) -> None:
    mounted = proc(*NAMED_ONLY)
    assert mounted == []
    with pytest.raises(UnsupportedError, match="no cgroup hierarchy"):
        hierarchy_named("name=systemd", mounted)


parts = st.lists(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
        lambda part: part not in {".", ".."}
    ),
    max_size=4,
).map("/".join)


@given(parts, st.sampled_from(["/", "/docker", "/docker/abc"]))
def test_the_path_inside_and_the_path_as_mounted_are_inverse(path: str, root: str) -> None:
    each = MEMORY._replace(root=root)
    outer = each.mount / path
    inner = each.inner_path(outer)
    assert inner == (root.rstrip("/") + "/" + path).rstrip("/") or inner == "/"
    assert each.outer_path(inner) == outer


def test_a_mount_of_a_part_shows_the_rest_of_the_path() -> None:
    part = MEMORY._replace(root="/docker/abc")
    assert part.inner_path(MEMORY.mount) == "/docker/abc"
    assert part.inner_path(MEMORY.mount / "x/y") == "/docker/abc/x/y"
    assert part.outer_path("/docker/abc/x") == MEMORY.mount / "x"


@pytest.mark.parametrize(
    ("name", "text"), [(b"web", "web"), ("é".encode(), "é"), (b"a\xff", "a\\xff")]
)
def test_a_strangers_name_is_always_text(name: bytes, text: str) -> None:
    assert decode(name) == text


def test_a_path_that_the_kernel_told_is_known_by_hierarchy_and_id() -> None:
    names = CgroupNames([MEMORY])
    names.remember(5, 44, "/docker/a")
    names.remember(0, 44, "/system.slice")
    assert (names.path(5, 44), names.path(0, 44)) == ("/docker/a", "/system.slice")
    assert (names.hierarchy_name(5), names.hierarchy_name(0)) == ("memory", None)


def test_a_path_is_replaced_when_its_id_comes_again() -> None:
    names = CgroupNames([MEMORY])
    names.remember(5, 44, "/old")
    names.remember(5, 44, "/new")
    assert names.path(5, 44) == "/new"


def test_a_path_in_a_hierarchy_that_is_not_watched_is_not_known() -> None:
    assert CgroupNames([MEMORY]).path(77, 1) is None


def test_the_oldest_paths_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CgroupNames, "LIMIT", 3)
    names = CgroupNames([])
    for number in range(5):
        names.remember(5, number, f"/{number}")
    assert [names.path(5, number) for number in range(5)] == [None, None, "/2", "/3", "/4"]


def test_a_path_that_records_have_outlasts_any_number_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CgroupNames, "LIMIT", 3)
    names = CgroupNames([])
    names.remember(5, 1000, "/web")
    assert names.path(5, 1000) == "/web"
    for number in range(10):
        names.remember(5, number, f"/{number}")
    assert names.path(5, 1000) == "/web"
    names.remember(5, 1000, "/renamed")
    assert names.path(5, 1000) == "/renamed"


def test_what_is_renamed_has_its_new_path_and_so_has_what_is_below_it() -> None:
    names = CgroupNames([])
    for number, path in enumerate(("/a", "/a/b", "/a/b/c", "/ab", "/z")):
        names.remember(5, number, path)
    names.remember(0, 1, "/a/b")
    assert names.path(5, 2) == "/a/b/c"
    version = names.version
    assert names.rename(5, 0, "/n") == "/a"
    assert names.path(5, 0) == "/n"
    assert names.version > version
    names.tidy()
    names.rename(5, 1, "/n/m")
    names.tidy()
    assert [names.path(5, number) for number in range(5)] == ["/n", "/n/m", "/n/m/c", "/ab", "/z"]
    assert names.path(0, 1) == "/a/b"


def test_below_what_had_an_unknown_path_paths_are_forgotten() -> None:
    names = CgroupNames([])
    for number, path in enumerate(("/x/a/b", "/xy", "/z/a")):
        names.remember(5, number, path)
        assert names.path(5, number) == path
    assert names.rename(5, 77, "/x/new") is None
    names.tidy()
    assert [names.path(5, number) for number in range(3)] == [None, "/xy", "/z/a"]


def test_the_id_of_a_cgroup_holds_its_directorys_inode() -> None:
    """Before Linux 5.5 the upper half is a generation."""
    mount = hierarchies()[0].mount
    assert cgroup_id(mount) & 0xFFFFFFFF == mount.stat().st_ino & 0xFFFFFFFF


def test_a_cgroup_that_is_not_there_has_no_id() -> None:
    path = hierarchies()[0].mount / "no_such_group"
    with pytest.raises(FileNotFoundError) as raised:
        cgroup_id(path)
    assert raised.value.filename == str(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="opening by handle needs CAP_DAC_READ_SEARCH")
def test_a_cgroups_path_is_found_by_its_id_alone() -> None:
    found = hierarchies()
    names = CgroupNames(found)
    for each in found:
        for path in islice(subtree(each.mount), 5):
            assert names.path(each.id, cgroup_id(path)) == each.told_path(path)
        assert names.path(each.id, 1 << 62) is None
    names.close()


def test_a_subtree_is_every_directory_parents_first(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "cgroup.procs").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    found = list(subtree(tmp_path))
    assert sorted(found) == [tmp_path, tmp_path / "a", tmp_path / "a/b", tmp_path / "c"]
    assert found.index(tmp_path / "a") < found.index(tmp_path / "a/b")


def test_a_subtree_that_is_gone_is_its_top_alone(tmp_path: Path) -> None:
    assert list(subtree(tmp_path / "gone")) == [tmp_path / "gone"]


# -- in a cgroup namespace


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/", "/a/b"), ("/c", "/a/b/c"), ("/..", "/a"), ("/../d/e", "/a/d/e"), ("/../../f", "/f")],
)
def test_a_path_of_proc_is_told_from_the_namespaces_root(
    monkeypatch: pytest.MonkeyPatch, path: str, expected: str
) -> None:
    monkeypatch.setattr(cgroups, "_bases", {5: "/a/b"})
    assert cgroups.from_namespace(5, path) == expected
    assert cgroups.from_namespace(0, path) == path


def test_a_directory_is_found_in_any_mount_of_a_hierarchy() -> None:
    seen = ((Path("/sys/fs/cgroup"), "/a/b"), (Path("/host"), "/"))
    found = Hierarchy(0, "v2", ("v2",), Path("/proc/self/fd/9"), "/", seen)
    assert found.place == Path("/sys/fs/cgroup")
    assert [found.inside(Path(each)) for each in ("/sys/fs/cgroup/c", "/host/c", "/elsewhere")] == [
        "/a/b/c", "/c", None,
    ]  # fmt: skip
    assert found.told_of_open(Path("/a/b")) == "/a/b"
    assert found.note is None


def test_of_mounts_in_a_namespace_the_one_whose_root_is_everybodys_is_taken(
    proc: Proc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its root is shown as /../.. there, and a container's own as /."""
    monkeypatch.setattr(cgroups, "is_in_namespace", lambda _proc: True)
    ids = {FS: 77, "/host": 1}
    monkeypatch.setattr(cgroups, "cgroup_id", lambda path: ids[str(path)])
    monkeypatch.setattr(CgroupNames, "path", lambda _, __, number: {77: "/a/b", 1: "/"}[number])
    monkeypatch.setattr(cgroups, "_bases", {})
    own = f"30 24 0:26 / {FS} rw - cgroup2 cgroup2 rw\n"
    (found,) = proc("0::/\n", own + "31 24 0:26 /../.. /host rw - cgroup2 cgroup2 rw\n")
    assert (found.mount, found.root, found.is_part) == (Path("/host"), "/", False)
    assert cgroups._bases == {0: "/a/b"}
