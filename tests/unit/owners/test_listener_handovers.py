# SPDX-License-Identifier: BSD-2-Clause
"""Who has the listeners now: found in a made-up /proc, told to made-up maps."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeMap
from proc_tree import ProcTree, Socket

from cgnet.filters.selection import Filters, Selection
from cgnet.owners import listener_handovers, open_sockets, processes
from cgnet.owners.listener_handovers import Handovers, Opened, Owner
from cgnet.records._layouts import DESCRIPTOR, HOLDER, LISTENER_FD, TCP_LISTENER

if TYPE_CHECKING:
    from pathlib import Path

    from cgnet.owners.cgroups import Hierarchy

LISTENER = 901


@pytest.fixture
def proc(tmp_path: Path, mounted: list[Hierarchy], monkeypatch: pytest.MonkeyPatch) -> ProcTree:
    assert mounted
    made = ProcTree(tmp_path)
    for module in (processes, listener_handovers):
        monkeypatch.setattr(module, "PROC", made.root)
    return made


class Programs:
    """What the kernel side knows; without iterators."""

    def __init__(self) -> None:
        self.maps: dict[str, Any] = {"listeners": FakeMap(), "listening": FakeMap()}

    def map(self, name: str) -> Any:
        return self.maps[name]

    def iterate_if_loaded(self, name: str) -> bytes | None:
        assert name == listener_handovers.ITERATOR

    def seed(self, proc: ProcTree, filters: Filters) -> None:
        open_sockets.seed_listeners(*self.maps.values(), open_sockets.find(proc.root), filters)

    def owner(self, inode: int = LISTENER) -> Owner:
        value = self.maps["listening"].lookup(inode.to_bytes(8, sys.byteorder), TCP_LISTENER.size)
        return Owner.of(value)

    def at_place(self) -> Owner:
        (value,) = self.maps["listeners"].entries.values()
        return Owner.of(value)


class Watch(Handovers):
    """Looks when the test wants."""

    def __init__(self, programs: Programs, filters: Filters) -> None:
        self._next_pass = self._used_by_pass = 0.0
        self._obj, self._filters = programs, filters  # type: ignore[assignment]


@pytest.fixture
def programs() -> Programs:
    return Programs()


def leaves(proc: ProcTree, pid: int) -> None:
    import shutil

    shutil.rmtree(proc.root / str(pid))


def test_the_one_that_has_it_stays_and_its_descriptor_is_found(
    proc: ProcTree, programs: Programs
) -> None:
    proc.process(7, LISTENER, sockets=(Socket(LISTENER),))
    proc.process(8, LISTENER)
    programs.seed(proc, Filters())
    assert programs.owner().fd == -1
    Watch(programs, Filters()).look()
    assert (programs.owner().pid, programs.owner().fd) == (7, 2)
    assert programs.at_place().pid == 7


@pytest.mark.parametrize("how", ["exits", "closes"])
def test_another_one_that_has_it_is_told(proc: ProcTree, programs: Programs, how: str) -> None:
    proc.process(7, LISTENER, sockets=(Socket(LISTENER),))
    proc.process(8, LISTENER, comm="new", cgroup="/c", uid=0)
    filters = Filters(Selection(comm=("new",)))
    programs.seed(proc, filters)
    assert HOLDER.packed.unpack(programs.owner().value[: HOLDER.size])[-3] == 0
    if how == "exits":
        leaves(proc, 7)
    else:
        (proc.root / "7/fd/2").unlink()
    Watch(programs, filters).look()
    for owner in (programs.owner(), programs.at_place()):
        assert (owner.pid, owner.comm.rstrip(b"\0"), owner.fd) == (8, b"new", 2)
        assert HOLDER.packed.unpack(owner.value[: HOLDER.size])[-3:] == (1, 0, 1)


def test_nobody_who_has_it_is_unknown(proc: ProcTree, programs: Programs) -> None:
    proc.process(7, LISTENER, sockets=(Socket(LISTENER),))
    programs.seed(proc, Filters())
    (proc.root / "7/fd/2").unlink()
    Watch(programs, Filters()).look()
    assert (programs.owner().pid, programs.at_place().pid) == (0, 0)
    proc.process(8, LISTENER)
    watch = Watch(programs, Filters())
    watch.look()
    assert (programs.owner().pid, programs.at_place().pid) == (8, 8)


def test_of_several_cgroups_nobody_is_taken_unless_it_waits(
    proc: ProcTree, programs: Programs
) -> None:
    proc.process(7, LISTENER, sockets=(Socket(LISTENER),))
    programs.seed(proc, Filters())
    leaves(proc, 7)
    proc.process(8, LISTENER)
    proc.process(9, LISTENER, cgroup="/c")
    Watch(programs, Filters()).look()
    assert programs.owner().pid == 0
    place = proc.root / "9"
    (place / "fd/9").symlink_to(listener_handovers.EVENTPOLL)
    (place / "fdinfo").mkdir()
    told = f"tfd:        2 events:       19 data: 2  pos:0 ino:{LISTENER:x} sdev:9\n"
    (place / "fdinfo/9").write_text(told)
    Watch(programs, Filters()).look()
    assert programs.owner().pid == 9


def test_of_one_cgroup_the_one_that_began_first_is_taken(
    proc: ProcTree, programs: Programs
) -> None:
    """They began at once here: then it is the lower number."""
    proc.process(7, LISTENER, sockets=(Socket(LISTENER),))
    programs.seed(proc, Filters())
    leaves(proc, 7)
    for pid in (12, 9, 10):
        proc.process(pid, LISTENER)
    Watch(programs, Filters()).look()
    assert programs.owner().pid == 9


def test_listeners_of_one_place_have_an_owner_if_it_is_one(
    proc: ProcTree, programs: Programs
) -> None:
    both = (Socket(901), Socket(902))
    proc.process(7, 901, 902, sockets=both)
    programs.seed(proc, Filters())
    assert programs.at_place().pid == 7
    (proc.root / "7/fd/2").unlink()  # 901
    proc.process(8, 901)
    Watch(programs, Filters()).look()
    assert (programs.owner(901).pid, programs.owner(902).pid) == (8, 7)
    assert programs.at_place().pid == 0
    leaves(proc, 7)
    proc.process(9, 902)
    Watch(programs, Filters()).look()
    assert (programs.owner(902).pid, programs.at_place().pid) == (9, 0)


def test_new_name_of_the_process_is_told(proc: ProcTree, programs: Programs) -> None:
    proc.process(7, LISTENER, sockets=(Socket(LISTENER),))
    filters = Filters(Selection(comm=("other",)))
    programs.seed(proc, filters)
    (proc.root / "7/comm").write_text("other\n")
    Watch(programs, filters).look()
    for owner in (programs.owner(), programs.at_place()):
        assert owner.comm.rstrip(b"\0") == b"other"
        assert HOLDER.packed.unpack(owner.value[: HOLDER.size])[-3] == 1


def test_what_the_iterator_tells_is_read() -> None:
    at = (0xFFFF0000, 0xFFFF1000, 77, 5, 0)
    told = LISTENER_FD.packed.pack(LISTENER, 7, 0, *at) + LISTENER_FD.packed.pack(902, 8, 0, *at)
    found = listener_handovers.from_kernel(told)
    assert found == {
        LISTENER: [Opened(7, 5, DESCRIPTOR.packed.pack(*at))],
        902: [Opened(8, 5, DESCRIPTOR.packed.pack(*at))],
    }
