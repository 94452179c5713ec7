# SPDX-License-Identifier: BSD-2-Clause
"""Whose a network namespace is, on made-up hosts."""

from __future__ import annotations

import errno
import logging
import math
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeMap, u32
from hypothesis import given
from hypothesis import strategies as st
from proc_tree import ProcTree
from runtime_state import ID, OTHER, docker

from cgnet.errors import LibbpfError
from cgnet.owners import netns_owners
from cgnet.owners.cgroups import Hierarchy
from cgnet.owners.netns_owners import (
    AGAIN_S,
    LOOKS,
    NetnsNames,
    NetnsOwners,
    Told,
    addresses_of,
    owner_among,
)
from cgnet.owners.runtimes import Runtimes, files, listing
from cgnet.records._layouts import DEVICE_ADDRESS, NETNS_OWNER

if TYPE_CHECKING:
    from pathlib import Path

POD = {"pod": "shop-0", "pod_namespace": "prod", "pod_uid": "u1"}
POD_AGAIN = POD | {"pod_uid": "u2"}
NO_POD = dict.fromkeys(POD)
PREFIX = (
    "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n"
    "     |-- 172.17.0.0\n        /16 link UNICAST\nLocal:\n"
)


def row(name: str, *, sandbox: bool = False, **more: Any) -> dict[str, Any]:
    """Return a row of the list of containers."""
    facts = {"pid": 7, "cgroup_id": "42", "netns": 5, "found": "state", **NO_POD}
    return {"container": name, "sandbox": sandbox, **facts, **more}


@pytest.mark.parametrize(
    ("rows", "owner"),
    [
        ([], None),
        ([row("web")], "web"),
        ([row("web"), row("db")], None),  # strangers that share, as with --network container:web
        ([row("web", **POD)], "web"),
        ([row("web", **POD), row("pause", sandbox=True, **POD)], "web"),
        ([row("pause", sandbox=True, **POD)], "pause"),
        ([row("pause", sandbox=True, **POD), row("web", **POD), row("side", **POD)], "pause"),
        ([row("web", **POD), row("side", **POD)], None),  # the sandbox isn't known
        ([row("pause", sandbox=True), row("web"), row("side")], None),  # of no pod
        (
            [
                row("pause", sandbox=True, **POD),
                row("web", **POD),
                row("other", **POD_AGAIN | {"pod": "shop-1"}),
            ],
            None,
        ),
        ([row("pause", sandbox=True, **POD), row("a", **POD), row("b", **POD_AGAIN)], None),
    ],
    ids=lambda value: "+".join(each["container"] for each in value)
    if isinstance(value, list)
    else str(value),
)  # fmt: skip
def test_one_container_or_its_pods_sandbox_stands_for_a_namespace(
    rows: list[dict[str, Any]], owner: str | None
) -> None:
    for order in (rows, rows[::-1]):
        found = owner_among(order)
        assert (found and found["container"]) == owner


class Host:
    """A host whose containers a test tells."""

    def __init__(self, root: Path) -> None:
        self.proc = ProcTree(root)
        self.proc.process(1)
        self.rows: dict[str, dict[str, Any]] = {}  # of confirmed containers by cgroup
        self.looks: list[str] = []
        self.now = 1000.0
        self.owners, self.addresses = FakeMap(), FakeMap()

    def row_of(self, _hierarchy: Any, cgroup: str, *_: Any) -> dict[str, Any] | None:
        self.looks.append(cgroup)
        self.now += LOOK_S
        return self.rows.get(cgroup)

    def container(self, pid: int, cgroup: int, *addresses: str, netns: str, **more: Any) -> str:
        """Make a container with a process in a namespace, which has addresses; return its cgroup."""
        place = self.proc.process(pid, netns=netns)
        lines = [f"     |-- {each}\n        /32 host LOCAL\n" for each in addresses]
        (place / "net/fib_trie").write_text(PREFIX + "".join(lines), encoding="utf-8")
        facts = {"pid": pid, "cgroup_id": str(cgroup), "netns": self.proc.netns(netns), **more}
        self.rows[path_of(pid)] = row(f"c{pid}", cgroup=path_of(pid), **facts)
        return path_of(pid)

    def told(self) -> dict[int, tuple[int, int]]:
        return {
            int.from_bytes(key, sys.byteorder): NETNS_OWNER.packed.unpack(value)
            for key, value in self.owners.entries.items()
        }

    def told_addresses(self) -> dict[tuple[bytes, int], int]:
        return {
            DEVICE_ADDRESS.packed.unpack(key)[:2]: int.from_bytes(value, sys.byteorder)
            for key, value in self.addresses.entries.items()
        }

    def runtimes(self) -> Any:
        return SimpleNamespace(of=lambda cgroup: cgroup, confirmed=lambda: list(self.rows))


LOOK_S = 0.001


def path_of(pid: int) -> str:
    return f"/docker/{pid:064x}"


class Followed:
    """Owners of namespaces, and the time that passes."""

    def __init__(self, host: Host, *maps: Any) -> None:
        hierarchy: Any = SimpleNamespace(outer_path=lambda cgroup: cgroup)
        self.host = host
        self.made = NetnsOwners(host.runtimes(), hierarchy, *maps, proc=host.proc.root)

    def look(self, *cgroups: str, spent: float = math.inf) -> list[str]:
        """Have it look, after cgroups were made; return which ones were looked at."""
        for cgroup in cgroups:
            self.made.made(cgroup)
        self.host.looks.clear()
        self.made.follow(spent)
        self.host.now += AGAIN_S
        return list(self.host.looks)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(tmp_path)
    monkeypatch.setattr(netns_owners, "row_of", found.row_of)
    monkeypatch.setattr(netns_owners, "cookie_of", lambda place: 7000 + int(place.parts[-3]))
    monkeypatch.setattr(netns_owners, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


@pytest.fixture
def owners(host: Host) -> Followed:
    return Followed(host, host.owners, host.addresses)


def test_each_namespace_has_its_owner_with_its_cookie(host: Host, owners: Followed) -> None:
    owners.look(host.container(7, 42, netns="web"), host.container(8, 43, netns="db"))
    assert host.told() == {host.proc.netns("web"): (7007, 42), host.proc.netns("db"): (7008, 43)}


@pytest.mark.parametrize(
    "more",
    [{"netns": "host"}, {"netns": "own"}, {"netns": "gone", "found": None}],
    ids=lambda value: value["netns"],
)
def test_the_hosts_namespace_cgnets_own_and_what_nothing_confirms_are_nobodys(
    host: Host, owners: Followed, more: dict[str, Any]
) -> None:
    (host.proc.root / "self/ns").mkdir()
    host.proc.netns("own")
    (host.proc.root / "self/ns/net").symlink_to(host.proc.namespaces / "own")
    owners.look(host.container(7, 42, **more))
    assert host.told() == {}


def test_a_namespace_that_cant_be_seen_is_left_out(host: Host, owners: Followed) -> None:
    cgroup = host.container(7, 42, netns="web")
    host.rows[cgroup]["netns"] = None
    owners.look(cgroup)
    assert host.told() == {}


def test_what_is_gone_is_taken_back(host: Host, owners: Followed) -> None:
    first = host.container(7, 42, "172.17.0.2", netns="web")
    second = host.container(8, 43, "172.17.0.3", netns="db")
    owners.look(first, second)
    owners.made.gone(first, 1)
    owners.look()
    assert host.told() == {host.proc.netns("db"): (7008, 43)}
    del host.rows[second]  # what tells of that was lost
    owners.look()
    assert (host.told(), host.told_addresses()) == ({}, {})


def test_what_changes_is_told(host: Host, owners: Followed) -> None:
    """A container that starts again, and gets its address later."""
    cgroup = host.container(7, 42, netns="web")
    owners.look(cgroup)
    assert host.told_addresses() == {}
    for _ in range(2 * LOOKS):
        owners.look()
    host.container(8, 44, "172.17.0.2", netns="web2")
    host.rows[cgroup] = host.rows.pop(path_of(8)) | {"cgroup": cgroup}
    owners.look()
    assert host.told() == {host.proc.netns("web2"): (7008, 44)}
    assert list(host.told_addresses().values()) == [44]


def test_an_address_is_that_of_the_one_namespace_that_has_it(host: Host, owners: Followed) -> None:
    owners.look(
        host.container(7, 42, "172.17.0.2", "10.0.0.1", "127.0.0.1", netns="web"),
        host.container(8, 43, "172.17.0.3", "10.0.0.1", netns="db"),
    )
    assert host.told_addresses() == {
        (bytes([172, 17, 0, 2]) + bytes(12), 4): 42,
        (bytes([172, 17, 0, 3]) + bytes(12), 4): 43,
    }


def test_without_a_map_for_them_addresses_arent_looked_for(host: Host) -> None:
    Followed(host, host.owners).look(host.container(7, 42, "172.17.0.2", netns="web"))
    assert len(host.told()) == 1


def test_a_new_cgroup_is_looked_at_some_times_once_a_runtime_confirms_it(
    host: Host, owners: Followed
) -> None:
    assert owners.look(path_of(7), "/docker", f"{path_of(7)}/init.scope", "/system.slice") == []
    cgroup = host.container(7, 42, netns="web")
    host.rows[cgroup]["netns"] = None  # no process yet
    for _ in range(LOOKS - 1):
        assert owners.look() == [cgroup]
    assert owners.look() == []
    assert owners.look(cgroup) == [cgroup]


def test_looks_are_a_second_apart(host: Host, owners: Followed) -> None:
    cgroup = host.container(7, 42, netns="web")
    owners.look(cgroup)
    host.now -= AGAIN_S / 2
    assert owners.look() == []


def test_what_nothing_confirms_costs_no_look_and_no_room(
    host: Host, owners: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netns_owners, "MAX_NEW", 5)
    cgroup = host.container(7, 42, netns="web")
    looked = owners.look(*map(path_of, range(1000, 2000)), cgroup)
    assert set(looked) == {cgroup}
    assert len(owners.made._left) <= 5


def test_looks_take_no_longer_than_they_may_and_all_have_their_turn(
    host: Host, owners: Followed
) -> None:
    cgroups = [host.container(7 + number, 42, netns=f"n{number}") for number in range(20)]
    owners.look(*cgroups)
    for _ in range(LOOKS):
        owners.look()
    looked: list[str] = []
    for _ in range(4):
        some = owners.look(spent=5.5 * LOOK_S)
        assert len(some) == 6
        looked += some
    assert set(looked) == set(cgroups)


def test_a_namespaces_name_is_that_of_its_container(host: Host) -> None:
    hierarchy: Any = SimpleNamespace(outer_path=lambda cgroup: cgroup)
    names = NetnsNames(host.runtimes(), hierarchy, host.proc.root)
    host.container(7, 42, netns="web")
    web, db = host.proc.netns("web"), host.proc.netns("db")
    assert names.name(web) == "c7"
    host.container(8, 43, netns="db")
    assert names.name(db) is None  # not at once: it may be asked for with every packet
    host.now += AGAIN_S
    host.looks.clear()
    assert (names.name(db), names.name(web), names.name(0)) == ("c8", "c7", None)
    assert host.looks == [path_of(8)]


def test_addresses_are_read_of_both_families_without_loopbacks(tmp_path: Path) -> None:
    place = tmp_path / "7"
    (place / "net").mkdir(parents=True)
    own, other = "/32 host LOCAL", "/32 link BROADCAST"
    kinds = [("10.1.2.3", own), ("127.0.0.1", own), ("10.1.2.255", other), ("10.1.2.3", own)]
    lines = [f"     |-- {address}\n        {kind}\n" for address, kind in kinds]
    (place / "net/fib_trie").write_text(PREFIX + "".join(lines), encoding="utf-8")
    six = "20010db8000000000000000000000007"
    table = f"{'0' * 31}1 01 80 10 80       lo\n{six} 02 40 00 80     eth0\n"
    (place / "net/if_inet6").write_text(table, encoding="utf-8")
    assert {DEVICE_ADDRESS.packed.unpack(each) for each in addresses_of(place)} == {
        (bytes([10, 1, 2, 3]) + bytes(12), 4, bytes(3)),
        (bytes.fromhex(six), 6, bytes(3)),
    }


def test_a_process_that_has_gone_has_no_addresses(tmp_path: Path) -> None:
    assert list(addresses_of(tmp_path / "7")) == []


@given(st.lists(st.dictionaries(st.integers(0, 5), st.integers(0, 2)), max_size=8))
def test_the_map_has_what_was_told_last(steps: list[dict[int, int]]) -> None:
    map_: Any = FakeMap()
    told = Told("things", map_)
    for step in steps:
        entries = {u32(key): u32(value) for key, value in step.items()}
        told.tell(entries)
        assert map_.entries == entries


def test_what_has_no_room_is_told_once_there_is_some(caplog: pytest.LogCaptureFixture) -> None:
    map_: Any = FakeMap(full_at=1)
    told = Told("things", map_)
    with caplog.at_level(logging.WARNING):
        told.tell({b"a": b"1", b"b": b"2"})
    assert map_.entries == {b"a": b"1"}
    assert caplog.messages == ["too many things: the owners of some aren't told"]
    told.tell({b"b": b"2"})
    assert map_.entries == {b"b": b"2"}


def test_another_error_of_the_map_is_raised() -> None:
    def refuse(*_: bytes) -> None:
        raise LibbpfError("no", errno.EPERM)

    map_: Any = SimpleNamespace(update=refuse)
    with pytest.raises(LibbpfError):
        Told("things", map_).tell({b"a": b"1"})


def test_the_containers_are_those_of_the_runtimes_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hierarchy = Hierarchy(5, "memory", ("memory",), tmp_path / "cgroup", "/")
    monkeypatch.setattr(files, "OWNER", os.geteuid())
    monkeypatch.setattr(listing, "cgroup_id", lambda path: len(path.name))
    monkeypatch.setattr(netns_owners, "cookie_of", lambda _place: 9)
    proc = ProcTree(tmp_path)
    proc.process(1)
    for pid, name in ((4242, ID), (4243, OTHER)):
        docker(tmp_path, name)
        proc.process(pid, netns="shared" if pid == 4242 else "host")
        group = hierarchy.mount / f"docker/{name}"
        group.mkdir(parents=True)
        (group / "cgroup.procs").write_text(f"{pid}\n", encoding="utf-8")
    map_: Any = FakeMap()
    made = Runtimes(tmp_path, proc.root)
    made.learn(f"/docker/{name}" for name in (ID, OTHER))  # no look waits for it
    owners = NetnsOwners(made, hierarchy, map_, proc=proc.root)
    for name in (ID, OTHER):
        owners.made(f"/docker/{name}")
    owners.follow(math.inf)
    made.close()
    assert map_.entries == {u32(proc.netns("shared")): NETNS_OWNER.packed.pack(9, len(ID))}
