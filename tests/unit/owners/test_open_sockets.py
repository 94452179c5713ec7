# SPDX-License-Identifier: BSD-2-Clause
"""Sockets that are open already, found in a made-up /proc."""

from __future__ import annotations

import logging
import shutil
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from fakes import FakeMap
from hypothesis import given
from hypothesis import strategies as st
from proc_tree import ESTABLISHED, ProcTree, Socket

from cgnet.filters.selection import Filters, Selection
from cgnet.owners import open_sockets, processes
from cgnet.owners.open_sockets import Place, Sockets
from cgnet.records._layouts import HOLDER, LISTENER_KEY, TCP_LISTENER, OwnerSource, Undecided

if TYPE_CHECKING:
    from cgnet.owners.cgroups import Hierarchy

V4 = bytes(10) + b"\xff\xff"
ANY = bytes(16)


@pytest.fixture
def proc(tmp_path: Path, mounted: list[Hierarchy], monkeypatch: pytest.MonkeyPatch) -> ProcTree:
    assert mounted
    made = ProcTree(tmp_path)
    monkeypatch.setattr(processes, "PROC", made.root)
    return made


class Holder(NamedTuple):
    """struct holder."""

    cgroup_id: int
    hierarchy: int
    source: int
    undecided: int
    given: int
    pid: int
    uid: int
    comm: bytes
    wanted: int
    alone: int
    sockets: int


def read(entries: dict[bytes, bytes]) -> dict[Any, Holder]:
    return {key: Holder(*HOLDER.packed.unpack(raw[: HOLDER.size])) for key, raw in entries.items()}


def test_without_processes_nothing_is_open(proc: ProcTree) -> None:
    assert open_sockets.find(proc.root) == Sockets({}, {}, {})


@pytest.mark.parametrize(
    ("address", "packed"),
    [
        ("0.0.0.0", ANY),
        ("::", ANY),
        ("127.0.0.1", V4 + bytes([127, 0, 0, 1])),
        ("::ffff:192.0.2.7", V4 + bytes([192, 0, 2, 7])),
        ("2001:db8::1:2", ip_address("2001:db8::1:2").packed),
    ],
)
def test_a_listener_is_found_with_its_place_and_process(
    proc: ProcTree, address: str, packed: bytes
) -> None:
    proc.process(7, 901, sockets=(Socket(901, address, 8080),))
    place = Place(proc.netns(), 8080, packed)
    assert open_sockets.find(proc.root) == Sockets({901: place}, {901: 7}, {901: 2})
    assert LISTENER_KEY.packed.unpack(place.key()) == (proc.netns(), 8080, 0, packed)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_any_place_is_read_as_it_is_written(address: Any, port: int) -> None:
    line = Socket(1, str(address), port).line().split()
    packed = address.packed if address.version == 6 else V4 + address.packed
    expected = ANY if not int(address) else packed
    assert open_sockets._place(5, line[1]) == Place(5, port, expected)


def test_a_connection_has_a_process_and_no_place(proc: ProcTree) -> None:
    proc.process(7, 902, sockets=(Socket(902, state=ESTABLISHED),))
    assert open_sockets.find(proc.root) == Sockets({902: None}, {902: 7}, {902: 2})


def test_what_has_no_file_any_more_is_left_out(proc: ProcTree) -> None:
    proc.process(7, sockets=(Socket(0, state="06"), Socket(0, "::1", state="06")))
    assert open_sockets.find(proc.root).places == {}


def test_a_socket_that_nobody_has_open_has_no_process(proc: ProcTree) -> None:
    proc.process(7, 950, sockets=(Socket(903),))
    found = open_sockets.find(proc.root)
    assert found.places.keys() == {903}
    assert 903 not in found.holders
    assert open_sockets.listening(found) == {Place(proc.netns(), 80, ANY): [903]}


def test_of_processes_that_share_a_socket_the_first_is_taken(proc: ProcTree) -> None:
    """By number, not by text: 9 comes before 10."""
    for pid in (10, 9, 100):
        proc.process(pid, 904, sockets=(Socket(904),))
    assert open_sockets.find(proc.root).holders == {904: 9}


def test_each_namespace_has_its_sockets_and_is_read_once(proc: ProcTree) -> None:
    proc.process(1, 905, sockets=(Socket(905),))
    proc.process(2, 906, netns="pod", sockets=(Socket(906),))
    again = proc.process(3, 907, netns="pod", sockets=(Socket(999),))
    found = open_sockets.find(proc.root)
    assert again.exists()
    assert found.places == {
        905: Place(proc.netns(), 80, ANY),
        906: Place(proc.netns("pod"), 80, ANY),
    }
    assert found.holders == {905: 1, 906: 2, 907: 3}


def test_a_process_that_goes_meanwhile_is_passed_over(proc: ProcTree) -> None:
    proc.process(1, 905, sockets=(Socket(905), Socket(908)))
    shutil.rmtree(proc.process(2, 906, netns="gone") / "ns")
    shutil.rmtree(proc.process(3, 907) / "fd")
    (proc.process(4, 908) / "fd/9").touch()  # no link: what readlink refuses
    found = open_sockets.find(proc.root)
    assert found.places.keys() == {905, 908}
    assert found.holders == {905: 1, 908: 4}


def test_a_kernel_without_ipv6_has_one_table_less(proc: ProcTree) -> None:
    (proc.process(1, 905, sockets=(Socket(905),)) / "net/tcp6").unlink()
    assert open_sockets.find(proc.root).holders == {905: 1}


def test_a_listener_of_this_process_is_found_in_the_real_proc() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        inode = Path(f"/proc/self/fd/{server.fileno()}").stat().st_ino
        found = open_sockets.find()
        place = found.places[inode]
        assert place is not None
        assert (place.port, place.address) == (server.getsockname()[1], V4 + b"\x7f\0\0\1")
        assert inode in found.holders


def seeded(proc: ProcTree, filters: Filters, before: FakeMap | None = None) -> dict[Any, Holder]:
    listeners: Any = before or FakeMap()
    open_sockets.seed_listeners(listeners, FakeMap(), open_sockets.find(proc.root), filters)  # type: ignore[arg-type]
    return read(listeners.entries)


def test_a_listeners_owner_is_what_the_programs_would_learn(
    proc: ProcTree, mounted: list[Hierarchy]
) -> None:
    proc.process(7, 901, sockets=(Socket(901),))
    (found,) = seeded(proc, Filters()).values()
    cgroup = (mounted[0].mount / "a").stat().st_ino
    comm = b"nginx".ljust(16, b"\0")
    seeded_ = OwnerSource.OWNER_SEEDED
    assert found == Holder(cgroup, mounted[0].id, seeded_, 0, 0, 7, 33, comm, 1, 0, 1)


@pytest.mark.parametrize(
    ("selection", "wanted", "given_"),
    [
        (Selection(comm=("nginx",)), 1, 0),
        (Selection(comm=("!nginx",)), 0, 0),
        (Selection(uid=("1",)), 0, 0),
        (Selection(cgroup=("/c", "/a")), 1, 2),
        (Selection(cgroup=("/c",)), 0, 0),
    ],
)
def test_whether_a_listeners_owner_is_wanted_is_decided_here(
    proc: ProcTree, selection: Selection, wanted: int, given_: int
) -> None:
    proc.process(7, 901, sockets=(Socket(901),))
    (found,) = seeded(proc, Filters(selection)).values()
    assert (found.wanted, found.given, found.undecided) == (wanted, given_, 0)


def test_a_name_is_decided_about_later(proc: ProcTree) -> None:
    proc.process(7, 901, sockets=(Socket(901),))
    (found,) = seeded(proc, Filters(Selection(container=("web",)))).values()
    assert (found.wanted, found.undecided) == (1, Undecided.UNDECIDED_NAME)


@pytest.mark.parametrize(("processes_", "pid"), [((7, 7), 7), ((7, 8), 0), ((7, None), 0)])
def test_listeners_of_one_place_have_an_owner_if_it_is_one(
    proc: ProcTree, processes_: tuple[int, int | None], pid: int
) -> None:
    """SO_REUSEPORT: which of them accepts isn't known."""
    inodes: dict[int, list[int]] = {7: [], 8: []}
    for inode, process in enumerate(processes_, 901):
        if process:
            inodes[process].append(inode)
    for process, has in inodes.items():
        proc.process(process, *has, sockets=(Socket(901), Socket(902)))
    (found,) = seeded(proc, Filters()).values()
    assert (found.pid, found.sockets) == (pid, 2)
    assert found.source == (OwnerSource.OWNER_SEEDED if pid else OwnerSource.OWNER_UNKNOWN)


def test_each_listener_is_told_by_its_inode_with_its_place(proc: ProcTree) -> None:
    proc.process(7, 901, sockets=(Socket(901), Socket(902)))
    proc.process(8, 902)
    by_inode: Any = FakeMap()
    by_place: Any = FakeMap()
    open_sockets.seed_listeners(by_place, by_inode, open_sockets.find(proc.root), Filters())
    key = Place(proc.netns(), 80, ANY).key()
    assert by_place.entries.keys() == {key}
    found = {int.from_bytes(inode, sys.byteorder): raw for inode, raw in by_inode.entries.items()}
    assert {inode: holder.pid for inode, holder in read(found).items()} == {901: 7, 902: 8}
    for inode, raw in found.items():
        assert len(raw) == TCP_LISTENER.size
        assert raw.endswith(inode.to_bytes(8, sys.byteorder) + key)


def test_what_the_programs_have_learnt_meanwhile_stays(proc: ProcTree) -> None:
    proc.process(7, 901, 902, sockets=(Socket(901), Socket(902, port=81)))
    learnt = FakeMap()
    key = Place(proc.netns(), 80, ANY).key()
    learnt.update(key, bytes(TCP_LISTENER.size))
    found = seeded(proc, Filters(), learnt)
    assert [each.pid for each in found.values()] == [0, 7]
    assert next(iter(found)) == key


def sockets_of(proc: ProcTree, filters: Filters, full_at: int = 99) -> dict[Any, Holder]:
    map_: Any = FakeMap(full_at)
    open_sockets.seed_sockets(map_, open_sockets.find(proc.root), filters)
    return {int.from_bytes(key, sys.byteorder): each for key, each in read(map_.entries).items()}


def test_every_socket_with_a_process_is_told_by_inode(proc: ProcTree) -> None:
    both = (Socket(901), Socket(902, state=ESTABLISHED), Socket(903, state=ESTABLISHED))
    proc.process(7, 901, 902, sockets=both, comm="a) b")
    proc.process(8, 903, uid=0, cgroup="/c")
    found = sockets_of(proc, Filters())
    assert {inode: (each.pid, each.uid) for inode, each in found.items()} == {
        901: (7, 33), 902: (7, 33), 903: (8, 0),
    }  # fmt: skip
    assert {each.source for each in found.values()} == {OwnerSource.OWNER_SEEDED}
    assert found[901].comm.rstrip(b"\0") == b"a) b"
    assert found[901].cgroup_id != found[903].cgroup_id


def test_a_socket_without_a_process_or_of_one_that_has_gone_is_left_out(proc: ProcTree) -> None:
    (proc.process(7, 901, sockets=(Socket(901), Socket(902), Socket(903))) / "stat").unlink()
    proc.process(8, 902)
    assert {inode: each.pid for inode, each in sockets_of(proc, Filters()).items()} == {902: 8}


def test_what_has_no_room_is_left_out_and_told(
    proc: ProcTree, caplog: pytest.LogCaptureFixture
) -> None:
    sockets = tuple(Socket(900 + number, state=ESTABLISHED) for number in range(5))
    proc.process(7, *(each.inode for each in sockets), sockets=sockets)
    with caplog.at_level(logging.WARNING):
        assert len(sockets_of(proc, Filters(), full_at=3)) == 3
    assert [record.message[:25] for record in caplog.records] == ["too many sockets are open"]
