# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from counting import NAMED, NAMES, Kernel, Run
from fakes import u32
from hypothesis import given
from hypothesis import strategies as st
from records import no_runtimes, packed_address

from cgnet.counting.counts import COUNTS, Counting, Counts
from cgnet.counting.keys import KEYS, read_by
from cgnet.filters.selection import Filters
from cgnet.records._layouts import OwnerSource, Role, Undecided

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.filters.cgroup import CgroupFilter
    from cgnet.owners.cgroups import Hierarchy

NEW, WANTED = Undecided.UNDECIDED_NEW, Undecided.UNDECIDED_SELECTED
SERVER = {"role": Role.ROLE_SERVER}


@pytest.fixture
def run(made: Callable[..., CgroupFilter]) -> Callable[..., Run]:
    """Begin to count by something, with some --cgroup."""

    def begin(by: str, *cgroups: str) -> Run:
        filters = Filters()
        filters.cgroups = made(*cgroups)
        return Run(Kernel(), Counts(Counting(read_by([by], KEYS)), filters, NAMES, no_runtimes()))

    return begin


@pytest.mark.parametrize(
    ("by", "values", "expected"),
    [
        ("pid", {"pid": 7}, (7,)),
        ("comm", {"comm": b"a\xff\0b"}, ("a\\xff",)),
        ("uid", {"uid": 1 << 31}, (1 << 31,)),
        ("netns", {"netns": 5}, (5,)),
        ("saddr", {"saddr": packed_address("192.0.2.1")}, ("192.0.2.1",)),
        ("daddr", {"daddr": packed_address("2001:db8::1"), "family": 6}, ("2001:db8::1",)),
        ("sport", {"sport": 65535}, (65535,)),
        ("dport", {"dport": 256}, (256,)),
        ("role", SERVER, ("server",)),
        ("result", {"result": 111}, ("ECONNREFUSED",)),
        ("result", {"result": -1}, ("aborted",)),
        ("cause", {"result": 4}, ("tail_loss_probe",)),
        ("cgroup", {}, ("/docker/web",)),
        ("container", {}, (None, None, None, "/docker/web")),
        ("container,cgroup/1", {}, (None, None, None, "/docker")),
        ("pod,unit", {}, (None, None, None)),
        ("dport,result,pid", {}, (443, "ok", 4711)),
    ],
)
def test_a_row_has_what_was_counted_by(
    run: Callable[..., Run], by: str, values: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    begun = run(by)
    begun.kernel.count(3, **values)
    assert begun.rows(*begun.counts.fields[:-1]) == [(*expected, 3)]


def test_who_is_in_no_container_is_shown_by_cgroup(run: Callable[..., Run]) -> None:
    begun = run("container,result")
    assert begun.counts.fields == (
        "container", "pod", "pod_namespace", "cgroup", "result", "count",
    )  # fmt: skip
    for number, cgroup in ((1, 42), (2, 43), (4, 42)):
        begun.kernel.count(number, cgroup_id=cgroup)
    assert begun.rows("container", "cgroup") == [
        (None, "/docker/web", 5),
        (None, "/docker/db/x", 2),
    ]


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (0, [("/", 15)]),
        (1, [("/docker", 11), ("/", 4)]),
        (2, [("/docker/web", 9), ("/", 4), ("/docker/db", 2)]),
        (9, [("/docker/web/inner", 8), ("/", 4), ("/docker/db/x", 2), ("/docker/web", 1)]),
    ],
)
def test_cgroups_are_merged_at_a_depth(
    run: Callable[..., Run], depth: int, expected: list[tuple[str, int]]
) -> None:
    begun = run(f"cgroup/{depth}")
    for number, cgroup in ((1, 42), (2, 43), (4, 44), (8, 45)):
        begun.kernel.count(number, cgroup_id=cgroup)
    assert begun.rows("cgroup") == expected


@pytest.mark.parametrize(
    ("by", "address", "family", "expected"),
    [
        ("daddr/24", "192.0.2.0", 4, "192.0.2.0/24"),
        ("daddr/0", "0.0.0.0", 4, "0.0.0.0/0"),
        ("daddr/64", "192.0.2.1", 4, "192.0.2.1/32"),  # an IPv4 address has no more
        ("daddr/64", "2001:db8::", 6, "2001:db8::/64"),
        ("daddr/128", "2001:db8::1", 6, "2001:db8::1/128"),
        ("daddr/24", "2001:d00::", 6, "2001:d00::/24"),
        ("daddr", "2001:d00::", 6, "2001:d00::"),
    ],
)
def test_a_prefix_is_shown_with_its_length(
    run: Callable[..., Run], by: str, address: str, family: int, expected: str
) -> None:
    begun = run(by)
    begun.kernel.count(1, daddr=packed_address(address), family=family)
    assert begun.rows("daddr") == [(expected, 1)]


def test_each_cgroup_given_has_its_row(run: Callable[..., Run]) -> None:
    begun = run("selected", "/a", "!/c", "/a/b")
    for number, given_ in ((1, 1), (2, 3), (4, 1)):
        begun.kernel.count(number, given=given_, cgroup_id=0)
    assert begun.rows("selected") == [("/a", 5), ("/a/b", 2)]


def test_an_unknown_owner_has_no_values_and_is_counted_as_such(run: Callable[..., Run]) -> None:
    begun = run("container,pid,result")
    begun.kernel.count(5, source=OwnerSource.OWNER_UNKNOWN, cgroup_id=0, hierarchy=0, pid=0)
    begun.kernel.count(1)
    assert begun.rows("container", "cgroup", "pid", "result") == [
        (None, None, None, "ok", 5),
        (None, "/docker/web", 4711, "ok", 1),
    ]
    assert begun.counts.of_unknown_owners == 5


@pytest.mark.parametrize(
    ("cgroup", "undecided", "given_", "expected"),
    [
        (42, NEW, 0, [2]),
        (45, NEW, 0, [2]),
        (43, NEW, 0, []),
        (99, NEW, 0, []),  # nothing tells its path
        (43, WANTED, 1, [1]),
        (42, WANTED, 1, [2]),  # the path tells more than what the parent was selected by
        (44, WANTED, 0, [0]),
        (99, WANTED, 1, [1]),
    ],
)
def test_an_owner_that_was_left_open_is_decided_by_its_path(
    run: Callable[..., Run],
    mounted: list[Hierarchy],
    *,
    cgroup: int,
    undecided: int,
    given_: int,
    expected: list[int],
) -> None:
    elsewhere = str(mounted[1].mount / "a")  # of another hierarchy
    begun = run("selected", elsewhere, "/docker/w*")
    begun.kernel.count(6, hierarchy=NAMED, cgroup_id=cgroup, undecided=undecided, given=given_)
    texts = (None, elsewhere, "/docker/w*")
    assert begun.rows("selected") == [(texts[number], 6) for number in expected]


def test_the_greatest_count_comes_first_and_equal_ones_by_their_values(
    run: Callable[..., Run],
) -> None:
    begun = run("dport")
    for number, port in ((1, 80), (3, 443), (1, 22), (2, 53)):
        begun.kernel.count(number, dport=port)
    assert begun.rows("dport") == [(443, 3), (53, 2), (22, 1), (80, 1)]


def test_rows_that_look_alike_are_one(run: Callable[..., Run]) -> None:
    begun = run("dport")
    for pid in range(10):
        begun.kernel.count(1, pid=pid, cgroup_id=pid)
    assert begun.rows("dport") == [(443, 10)]


@given(st.lists(st.lists(st.integers(0, 5), max_size=8), max_size=6))
def test_with_two_tables_in_turn_nothing_is_lost_or_counted_twice(
    batches: list[list[int]],
) -> None:
    begun = Run(Kernel(), Counts(Counting(read_by(["dport"])), Filters(), NAMES, no_runtimes()))
    total: Counter[int] = Counter()
    for batch in batches:
        for port in batch:
            begun.kernel.count(1, dport=port)
        found = dict(begun.rows("dport"))
        assert found == Counter(batch)
        total.update(found)
    assert total == Counter(port for batch in batches for port in batch)
    assert begun.rows("dport") == []


def test_a_table_is_read_once_it_is_out_of_use(run: Callable[..., Run]) -> None:
    begun, order = run("dport"), list[str]()
    kernel = begun.kernel
    old, other = (kernel.map(name) for name in COUNTS.inner)
    swap, keys = kernel.swap, old.keys

    def noted_swap(key: bytes, value: bytes) -> None:
        assert value == u32(other.fd)
        order.append("swap")
        swap(key, value)

    def noted_keys(size: int) -> Any:
        order.append("read")
        return keys(size)

    kernel.map("counts").update = noted_swap  # type: ignore[method-assign]
    old.keys = noted_keys  # type: ignore[method-assign]
    kernel.count(1)
    assert begun.rows("dport") == [(443, 1)]
    assert (order, old.entries, kernel.in_use) == (["swap", "read"], {}, other)
