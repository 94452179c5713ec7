# SPDX-License-Identifier: BSD-2-Clause
"""Cgroups that come and go while records do."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from fakes import FakeObject
from records import Connect, Names

from cgnet.filters.cgroup import SELECTED, cgroup_key
from cgnet.filters.selection import Filters, Selection
from cgnet.owners import cgroups
from cgnet.owners.cgroup_paths import Facts, place
from cgnet.owners.runtimes import EXPECTED_S, Known
from cgnet.owners.runtimes.found import Found
from cgnet.records._layouts import CGROUP_EVENT, CGROUP_MARK, FilterUse, RecordKind, Undecided
from cgnet.run import cgroup_watch
from cgnet.run.cgroup_watch import FORGET_CGROUP_AFTER_S, CgroupWatch

if TYPE_CHECKING:
    from collections.abc import Callable

NAMING = 1  # the id of the made-up hierarchy that names owners
CGROUP = 42
NEW, WANTED, NAME = (
    Undecided.UNDECIDED_NEW,
    Undecided.UNDECIDED_SELECTED,
    Undecided.UNDECIDED_NAME,
)


class Runtimes:
    """Knows of containers by path; what isn't in ``names`` is expected to be known soon."""

    def __init__(self) -> None:
        self.names: dict[str, str | None] = {}
        self.asked: list[str] = []
        self.told: list[str] = []
        self.removed: list[str] = []

    def of(self, path: str) -> Known:
        self.asked.append(path)
        name = self.names.get(path)
        inside = (Found("docker", "state", name),) if name else ()
        expected = path not in self.names
        until = cgroup_watch.time.monotonic() + EXPECTED_S if expected else 0.0
        return Known(Facts(container=name), inside, (), place(path), expected, not expected, until)

    def expect(self, path: str) -> None:
        self.asked.append(path)

    def news(self) -> list[str]:
        found = [path for path in self.names if path not in self.told]
        self.told += found
        return found

    def gone(self, path: str) -> None:
        self.removed.append(path)


class Run(NamedTuple):
    """CgroupWatch, and all that they speak with."""

    cgroup_watch: CgroupWatch
    obj: FakeObject
    names: Names
    runtimes: Runtimes
    said: list[str]

    def pids(self, *batch: bytes) -> list[int]:
        """Pass a batch on; return the processes of the records that come through."""
        passed = self.cgroup_watch.pass_on(self.obj, list(batch))
        by_raw = {Connect(pid=pid, **more).raw(): pid for pid in range(9) for more in KINDS}
        return [by_raw[raw] for raw in passed]


KINDS: list[dict[str, Any]] = [
    {"hierarchy": NAMING, "cgroup_id": cgroup, "undecided": undecided}
    for cgroup in (CGROUP, CGROUP + 1, CGROUP + 2)
    for undecided in (0, NEW, WANTED, NAME, NEW | NAME)
]


@pytest.fixture
def begin(mounted: object) -> Callable[..., Run]:
    assert mounted

    def make(**selected: tuple[str, ...]) -> Run:
        filters = Filters(Selection(**selected))  # type: ignore[arg-type]
        names, runtimes, said = Names(), Runtimes(), list[str]()
        made: Any = CgroupWatch(filters, names, runtimes, said.append)  # type: ignore[arg-type]
        return Run(made, FakeObject(), names, runtimes, said)

    return make


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(cgroup_watch, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def record(pid: int, undecided: int = 0, cgroup: int = CGROUP) -> bytes:
    return Connect(pid=pid, hierarchy=NAMING, cgroup_id=cgroup, undecided=undecided).raw()


def change(kind: RecordKind, path: str, cgroup: int = CGROUP, marks: int = 0) -> bytes:
    return CGROUP_EVENT.packed.pack(kind, 0, 0, cgroup, NAMING, marks, path.encode())


def created(path: str, cgroup: int = CGROUP) -> bytes:
    return change(RecordKind.RECORD_CGROUP_CREATED, path, cgroup)


def gone(path: str, cgroup: int = CGROUP, marks: int = 0) -> bytes:
    return change(RecordKind.RECORD_CGROUP_REMOVED, path, cgroup, marks)


def test_records_come_through_in_order_and_cgroups_give_names(begin: Callable[..., Run]) -> None:
    run = begin()
    assert run.pids(record(1), created("/docker/new"), record(2)) == [1, 2]
    assert run.names.path(NAMING, CGROUP) == "/docker/new"
    assert not run.cgroup_watch.is_waiting


def test_a_new_cgroup_is_looked_up_at_once_and_a_gone_one_is_not(
    begin: Callable[..., Run],
) -> None:
    run = begin()
    run.pids(created("/docker/new"), gone("/docker/old", CGROUP + 1))
    assert run.runtimes.asked == ["/docker/new"]
    assert run.names.path(NAMING, CGROUP + 1) == "/docker/old"


def test_a_path_that_did_not_come_names_nothing(begin: Callable[..., Run]) -> None:
    run = begin()
    run.names.remember(NAMING, CGROUP, "/known")
    run.pids(gone(""))
    assert run.names.path(NAMING, CGROUP) == "/known"


def test_patterns_decide_with_the_names_of_the_whole_batch(begin: Callable[..., Run]) -> None:
    run = begin(cgroup=("/x*", "!/**/no"))
    passed = run.pids(
        record(1, NEW),
        record(2, NEW, CGROUP + 1),
        record(3, WANTED, CGROUP + 2),
        record(4),
        created("/xy"),
        created("/y", CGROUP + 1),
        created("/xy/no", CGROUP + 2),
    )
    assert passed == [1, 4]
    assert set(run.obj.entries("selected_cgroups")) == {
        cgroup_key(NAMING, CGROUP),
        cgroup_key(NAMING, CGROUP + 2),
    }


def test_a_record_waits_for_its_containers_name_and_comes_before_later_ones(
    begin: Callable[..., Run],
) -> None:
    run = begin(container=("web",))
    assert run.pids(created("/docker/a"), record(1, NAME)) == []
    assert run.cgroup_watch.is_waiting
    assert run.obj.entries("named_cgroups") == {}
    assert run.pids(record(2, NAME)) == []
    run.runtimes.names["/docker/a"] = "web"
    assert run.pids(record(3)) == [1, 2, 3]
    assert not run.cgroup_watch.is_waiting
    assert run.obj.entries("named_cgroups") == {
        CGROUP.to_bytes(8, sys.byteorder): FilterUse.FILTER_INCLUDES.to_bytes(4, sys.byteorder)
    }


@pytest.mark.parametrize("name", ["db", None])
def test_a_record_of_another_container_is_dropped_and_the_kernel_side_told(
    begin: Callable[..., Run], name: str | None
) -> None:
    run = begin(container=("web",))
    run.runtimes.names["/docker/a"] = name
    assert run.pids(created("/docker/a"), record(1, NAME)) == []
    assert not run.cgroup_watch.is_waiting
    assert run.obj.entries("named_cgroups") == {
        CGROUP.to_bytes(8, sys.byteorder): FilterUse.FILTER_EXCLUDES.to_bytes(4, sys.byteorder)
    }


def test_name_and_path_must_both_be_wanted(begin: Callable[..., Run]) -> None:
    run = begin(container=("web",), cgroup=("/docker/*",))
    run.runtimes.names |= {"/docker/a": "web", "/other/b": "web", "/docker/c": "db"}
    both = NEW | NAME
    run.pids(
        created("/docker/a"), created("/other/b", CGROUP + 1), created("/docker/c", CGROUP + 2)
    )
    records = [record(number, both, CGROUP + number) for number in range(3)]
    assert run.pids(*records) == [0]


def mark(run: Run, cgroup: int = CGROUP) -> bytes:
    key = cgroup_key(NAMING, cgroup)
    run.obj.map("selected_cgroups").update(key, CGROUP_MARK.packed.pack(SELECTED, 1))
    return key


def test_a_mark_stays_as_long_as_sockets_may_live_on(
    begin: Callable[..., Run], clock: SimpleNamespace
) -> None:
    run = begin()
    first, second = mark(run), mark(run, CGROUP + 1)
    run.pids(gone("/a", marks=SELECTED))
    clock.s += 1
    run.pids(gone("/b", CGROUP + 1, marks=SELECTED))
    run.cgroup_watch.forget()
    assert set(run.obj.entries("selected_cgroups")) == {first, second}
    clock.s += FORGET_CGROUP_AFTER_S - 1
    run.cgroup_watch.forget()
    assert set(run.obj.entries("selected_cgroups")) == {second}
    clock.s += 1
    run.cgroup_watch.forget()
    assert run.obj.entries("selected_cgroups") == {}


@pytest.mark.parametrize(
    ("selected", "kept"), [({}, True), ({"cgroup": ("/x*",)}, False), ({"comm": ("a",)}, True)]
)
def test_what_was_not_marked_is_forgotten_only_where_it_may_have_been_since(
    begin: Callable[..., Run], clock: SimpleNamespace, selected: dict[str, Any], *, kept: bool
) -> None:
    run = begin(**selected)
    key = mark(run)
    run.pids(gone("/a"))
    clock.s += FORGET_CGROUP_AFTER_S
    run.cgroup_watch.forget()
    assert (key in run.obj.entries("selected_cgroups")) == kept


def test_what_was_told_of_a_name_is_forgotten_with_the_cgroup(
    begin: Callable[..., Run], clock: SimpleNamespace
) -> None:
    run = begin(container=("web",))
    run.runtimes.names["/docker/a"] = "web"
    run.pids(created("/docker/a"), record(1, NAME))
    run.pids(gone("/docker/a"))
    assert run.obj.entries("named_cgroups")
    clock.s += FORGET_CGROUP_AFTER_S
    run.cgroup_watch.forget()
    assert run.obj.entries("named_cgroups") == {}


def test_a_given_cgroup_that_goes_and_comes_back_is_told(begin: Callable[..., Run]) -> None:
    run = begin(cgroup=("/a",))
    run.pids(gone("/a", marks=SELECTED), gone("/c", CGROUP + 1, marks=SELECTED))
    assert run.said == ["--cgroup /a: it was removed; the run goes on, also if it comes back"]
    run.pids(created("/a", CGROUP + 2))
    assert run.said[1:] == ["--cgroup /a: it is there again"]
    assert cgroup_key(NAMING, CGROUP + 2) in run.obj.entries("selected_cgroups")


def test_a_record_waits_no_longer_than_names_are_expected(
    begin: Callable[..., Run], clock: SimpleNamespace
) -> None:
    """Also if they are still expected then, as where what was known was forgotten meanwhile."""
    run = begin(container=("!db",))
    assert run.pids(created("/docker/a"), record(1, NAME)) == []
    clock.s += EXPECTED_S / 2
    assert run.pids(record(2, NAME)) == []
    clock.s += EXPECTED_S / 2
    assert run.pids() == [1, 2]
    assert not run.cgroup_watch.is_waiting
    assert run.cgroup_watch.take_too_many() == 0


def test_a_container_of_a_cgroup_above_names_it(begin: Callable[..., Run]) -> None:
    run = begin(container=("web",))
    web, db = (f"/docker/{letter * 64}" for letter in "ab")
    run.pids(created(f"{web}/b"), created(f"{db}/b", CGROUP + 1))
    assert run.pids(record(1, NAME), record(2, NAME, CGROUP + 1)) == []
    run.runtimes.names[f"{web}/b"] = "web"
    run.runtimes.told.append(f"{web}/b")
    assert run.pids() == []  # nobody told of it
    run.runtimes.names[web] = "web"
    assert run.pids() == [1]


def test_of_too_many_that_wait_the_oldest_are_decided_about_and_counted(
    begin: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup_watch, "MAX_HELD", 2)
    run = begin(container=("web",))
    run.pids(*(created(f"/docker/{number}", CGROUP + number) for number in range(3)))
    assert run.pids(*(record(number, NAME, CGROUP + number) for number in range(3))) == []
    assert (run.cgroup_watch.take_too_many(), run.cgroup_watch.take_too_many()) == (1, 0)
    run.runtimes.names |= {f"/docker/{number}": "web" for number in range(3)}
    assert run.pids() == [1, 2]


def test_of_too_many_that_left_the_oldest_are_forgotten(
    begin: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup_watch, "MAX_LEAVING", 1)
    run = begin()
    keys = [mark(run, CGROUP + number) for number in range(3)]
    run.pids(*(gone(f"/{number}", CGROUP + number, marks=SELECTED) for number in range(3)))
    run.cgroup_watch.forget()
    assert set(run.obj.entries("selected_cgroups")) == {keys[2]}


def test_a_removed_cgroup_is_not_looked_for_any_more(begin: Callable[..., Run]) -> None:
    run = begin()
    run.pids(created("/docker/a"), gone("/docker/a"))
    assert run.runtimes.removed == ["/docker/a"]


def renamed(path: str, cgroup: int = CGROUP) -> bytes:
    return change(RecordKind.RECORD_CGROUP_RENAMED, path, cgroup)


def test_a_renamed_cgroup_is_told_by_its_new_path(begin: Callable[..., Run]) -> None:
    run = begin()
    run.pids(created("/old"), renamed("/new"))
    assert run.names.path(NAMING, CGROUP) == "/new"


def test_what_is_renamed_to_a_given_path_is_selected(
    begin: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(cgroup=("/a",))
    monkeypatch.setattr(cgroups, "cgroup_id", lambda _path: CGROUP)
    run.pids(renamed("/c"))
    assert run.obj.entries("selected_cgroups") == {}
    run.pids(renamed("/a"))
    assert set(run.obj.entries("selected_cgroups")) == {cgroup_key(NAMING, CGROUP)}
    assert run.said == ["--cgroup /a: a cgroup was renamed to it"]
