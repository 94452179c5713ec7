# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import os
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeObject, u32

from cgnet.errors import UsageError
from cgnet.filters.cgroup import SELECTED_CGROUPS
from cgnet.filters.names import NAMED_CGROUPS
from cgnet.filters.selection import LISTENERS, Filters, Selection, address_key
from cgnet.owners import cgroups, netns
from cgnet.records._layouts import (
    CGNET_HIERARCHIES,
    NETNS_VALUE,
    PID_VALUE,
    CgroupController,
    FilterConfig,
    Role,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.owners.cgroups import Hierarchy

pytestmark = pytest.mark.usefixtures("mounted")

OWN = str(os.getpid())
EVERY_RESULT = (2**64 - 1,) * 4
ABSENT_PID = str(1 << 30)  # above the kernel's greatest
# Whatever no option tells is 0.
UNUSED = FilterConfig(
    roles=Role.ROLE_CLIENT, by_address=(0, 0, 0), by_port=(0, 0, 0), results=EVERY_RESULT
)
BOTH_ROLES = frozenset(Role)


@pytest.fixture
def sleeper() -> Iterator[str]:
    """Another process than the test's own."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with process:
        yield str(process.pid)
        process.kill()


def test_without_a_value_nothing_is_looked_at() -> None:
    assert Filters().config() == UNUSED


@pytest.mark.parametrize(
    ("selection", "changed"),
    [
        (Selection(cgroup=("/a",)), {"by_cgroup": 1, "undecided": 1}),
        (Selection(cgroup=("!/a",)), {"by_cgroup": 2, "undecided": 1}),
        (Selection(cgroup=("/a", "!/a/b", "/c")), {"by_cgroup": 3, "undecided": 1}),
        (Selection(cgroup=("/a*",)), {"by_cgroup": 1, "undecided": 1}),
        (Selection(pid=(OWN,)), {"by_pid": 1}),
        (Selection(comm=("a", "!b")), {"by_comm": 3}),
        (Selection(uid=("!0",)), {"by_uid": 2}),
        (Selection(netns=(OWN,)), {"by_netns": 1}),
        (Selection(saddr=("10.0.0.0/8",)), {"by_address": (1, 0, 0)}),
        (Selection(daddr=("!fd00::/8",)), {"by_address": (0, 2, 0)}),
        (Selection(addr=("::1", "!::2")), {"by_address": (0, 0, 3)}),
        (Selection(sport=("80",)), {"by_port": (1, 0, 0)}),
        (Selection(dport=("!80",)), {"by_port": (0, 2, 0)}),
        (Selection(port=("80", "!81")), {"by_port": (0, 0, 3)}),
        (Selection(families=frozenset({4})), {"family": 4}),
        (Selection(families=frozenset({6})), {"family": 6}),
        (Selection(families=frozenset({4, 6})), {"family": 0}),
        (Selection(roles=frozenset({Role.ROLE_SERVER})), {"roles": 2}),
        (Selection(roles=BOTH_ROLES), {"roles": 3}),
        (Selection(result=("ok",)), {"by_result": 1, "results": (2, 0, 0, 0)}),
        (Selection(result=("aborted,63",)), {"by_result": 1, "results": (1, 1, 0, 0)}),
        (Selection(result=("!ok",)), {"by_result": 1, "results": (2**64 - 3, *EVERY_RESULT[1:])}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_an_option_changes_its_own_constants_and_no_other(
    selection: Selection, changed: dict[str, Any]
) -> None:
    assert Filters(selection).config() == UNUSED._replace(**changed)


def hierarchies_of(selection: Selection) -> list[tuple[int, ...]]:
    """Return (id, controller) of those that the programs are told."""
    made = cgroups.config(Filters(selection).hierarchies)
    assert made.hierarchies == len(made.hierarchy)
    return [tuple(each) for each in made.hierarchy]


def test_without_a_path_the_default_hierarchy_names_owners() -> None:
    assert hierarchies_of(Selection()) == [(1, CgroupController.CONTROLLER_MEMORY)]


def test_a_selected_paths_hierarchy_names_owners(mounted: list[Hierarchy]) -> None:
    found = hierarchies_of(Selection(cgroup=(str(mounted[1].mount / "a"),)))
    assert found == [(mounted[1].id, CgroupController.CONTROLLER_CPU)]


def test_a_hierarchy_that_was_asked_for_names_owners_whatever_is_selected(
    mounted: list[Hierarchy],
) -> None:
    path = str(mounted[1].mount / "a")
    found = hierarchies_of(Selection(cgroup=(path,), hierarchy="pids"))
    assert [number for number, _ in found] == [mounted[2].id, mounted[1].id]


def test_new_cgroups_of_the_hierarchy_that_names_owners_alone_are_left_open(
    mounted: list[Hierarchy],
) -> None:
    path = str(mounted[1].mount / "a")
    assert Filters(Selection(cgroup=(path,))).config().undecided == 1
    assert Filters(Selection(cgroup=(path,), hierarchy="pids")).config().undecided == 0
    assert Filters(Selection(cgroup=(path, "/c"), hierarchy="pids")).config().undecided == 1


def test_a_pattern_of_a_hierarchy_that_names_no_owners_is_refused(
    mounted: list[Hierarchy],
) -> None:
    pattern = str(mounted[1].mount / "a*")
    assert len(hierarchies_of(Selection(cgroup=(pattern,)))) == 1
    with pytest.raises(UsageError, match=r"patterns go with .* pids; give --hierarchy cpu"):
        Filters(Selection(cgroup=(pattern,), hierarchy="pids"))


def test_paths_of_more_hierarchies_than_there_is_room_for_are_refused(
    mounted: list[Hierarchy],
) -> None:
    paths = tuple(str(each.mount) for each in mounted)
    assert len(hierarchies_of(Selection(cgroup=paths[:4]))) == CGNET_HIERARCHIES
    with pytest.raises(UsageError, match="more than 4 hierarchies"):
        Filters(Selection(cgroup=paths[:5]))


SMALL = {
    f"selected_{name}": 1 for name in ("cgroups", "pids", "comms", "uids", "netns", "addresses")
} | {"listeners": 1, "listening": 1, "named_cgroups": 1}


@pytest.mark.parametrize(
    ("selection", "sizes"),
    [
        (Selection(), {}),
        (Selection(cgroup=("/a",)), {"selected_cgroups": SELECTED_CGROUPS}),
        (Selection(pid=("1", OWN, OWN)), {"selected_pids": 2}),
        (Selection(comm=("a", "b", "!a", "!c")), {"selected_comms": 3}),
        (Selection(uid=("0", "00", "!1")), {"selected_uids": 2}),
        (Selection(netns=(OWN, "4294967295")), {"selected_netns": 2}),
        (Selection(saddr=("::1", "!::1"), addr=("::1",)), {"selected_addresses": 3}),
        (
            Selection(roles=frozenset({Role.ROLE_SERVER})),
            {"listeners": LISTENERS, "listening": LISTENERS},
        ),
        (Selection(roles=BOTH_ROLES), {"listeners": LISTENERS, "listening": LISTENERS}),
        (Selection(container=("web",)), {"named_cgroups": NAMED_CGROUPS}),
        (Selection(unit=("!web",)), {"named_cgroups": NAMED_CGROUPS}),
    ],
)
def test_maps_have_room_for_what_goes_in_and_those_of_unused_filters_stay_small(
    selection: Selection, sizes: dict[str, int]
) -> None:
    obj, made = FakeObject(), Filters(selection)
    made.resize(obj)
    made.fill(obj)
    assert obj.sizes == SMALL | sizes
    needed = {name: max(1, len(obj.entries(name))) for name in SMALL if name.startswith("selected")}
    assert {name: obj.sizes[name] for name in needed} == needed | (
        {"selected_cgroups": SELECTED_CGROUPS} if selection.cgroup else {}
    )


def test_a_process_is_told_by_its_pid_and_its_start(sleeper: str) -> None:
    obj = FakeObject()
    Filters(Selection(pid=(OWN, f"!{sleeper}"))).fill(obj)
    found = {key: PID_VALUE.packed.unpack(v) for key, v in obj.entries("selected_pids").items()}
    starts = [
        int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()[19])
        for pid in (OWN, sleeper)
    ]
    assert found == {u32(int(OWN)): (starts[0], 1, 0), u32(int(sleeper)): (starts[1], 2, 0)}
    assert 0 < starts[0] <= starts[1]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("x", "give the PID of a running process"),
        ("", "give the PID of a running process"),
        ("-5", "give the PID of a running process"),
        ("4711x", "give the PID of a running process"),
        ("٤", "give the PID of a running process"),
        ("0", "give the PID of a running one"),
        (ABSENT_PID, "give the PID of a running one"),
        ("9" * 5000, "give the PID of a running one"),
    ],
)
@pytest.mark.parametrize("sign", ["", "!"])
def test_what_is_no_process_is_quoted(text: str, form: str, sign: str) -> None:
    with pytest.raises(UsageError) as raised:
        Filters(Selection(pid=(sign + text,)))
    assert str(raised.value).startswith(f"--pid {sign + text!r}: ")
    assert str(raised.value).endswith(form)


def test_zeros_before_a_pid_are_nothing() -> None:
    assert Filters(Selection(pid=("0" * 5000 + OWN,))).pids == Filters(Selection(pid=(OWN,))).pids


def test_names_users_and_namespaces_are_marked_by_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "find", lambda text: netns.Netns(int(text), 1 << 63))
    obj = FakeObject()
    Filters(Selection(comm=("a", "!b"), uid=("!7", "8"), netns=("5", "!6"))).fill(obj)
    assert obj.entries("selected_comms") == {
        b"a".ljust(16, b"\0"): u32(1),
        b"b".ljust(16, b"\0"): u32(2),
    }
    assert obj.entries("selected_uids") == {u32(7): u32(2), u32(8): u32(1)}
    assert obj.entries("selected_netns") == {
        u32(5): NETNS_VALUE.packed.pack(1 << 63, 1, 0),
        u32(6): NETNS_VALUE.packed.pack(1 << 63, 2, 0),
    }


def test_each_side_and_use_has_its_own_list_of_addresses() -> None:
    obj = FakeObject()
    selection = Selection(saddr=("10.0.0.0/8", "!10.1.0.0/16"), daddr=("::/0",), addr=("!::1",))
    Filters(selection).fill(obj)
    assert obj.entries("selected_addresses") == {
        address_key(0, ip_network("10.0.0.0/8")): u32(1),
        address_key(1, ip_network("10.1.0.0/16")): u32(1),
        address_key(2, ip_network("::/0")): u32(1),
        address_key(5, ip_network("::1")): u32(1),
    }


def test_ports_are_written_only_where_they_are_used() -> None:
    used, unused = FakeObject(), FakeObject()
    Filters(Selection(port=("80",))).fill(used)
    Filters().fill(unused)
    assert [*used.entries("selected_ports")] == [u32(0)]
    assert not any(each.entries for each in unused.maps.values())
