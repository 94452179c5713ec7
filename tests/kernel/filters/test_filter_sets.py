# SPDX-License-Identifier: BSD-2-Clause
"""--cgroup with ten thousand of them, and with ids that two hierarchies share."""

from __future__ import annotations

import itertools
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest
from compare import inner, only
from harness import HIERARCHY, V1, V2, new_cgroup, run, tracing
from kernel_maps import entries

from cgnet.owners.cgroups import cgroup_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Row

MANY = 10_000
# A v1 hierarchy of few files where there is one.
FULL = next((p for p in (V1.with_name("freezer"), V1.with_name("pids")) if p.is_dir()), HIERARCHY)
MAX_MADE = 1_000_000  # cgroups, to bring the ids of two hierarchies together


@contextmanager
def many_cgroups(top: Path, count: int) -> Iterator[list[Path]]:
    """Below one, and removed without a look at each process list."""
    groups = [top / f"g{number}" for number in range(count)]
    try:
        for group in groups:
            group.mkdir()
        yield groups
    finally:
        for group in groups:
            if group.exists():
                group.rmdir()


@pytest.mark.parametrize(
    ("hook_name", "below"), [("tp_btf", ""), ("raw_tp", "/g*")], ids=["subtree", "pattern"]
)
def test_ten_thousand_cgroups(parent: Path, port: int, hook_name: str, below: str) -> None:
    """All are there at the start; a few are excluded."""
    out = [word for number in (5000, 9999) for word in ("--cgroup", f"!{parent}/g{number}")]
    with (
        many_cgroups(parent, MANY) as groups,
        tracing("--hook", hook_name, "--cgroup", f"{parent}{below}", *out) as tracer,
    ):
        held = entries(tracer.process.pid, "selected_cgroups")
        others = [row for n in (5000, 9999) for row in at(groups[n], port)] + at(FULL, port)
        made = [row for n in (0, 1, 4999, 5001, 9998) for row in at(groups[n], port)]
        rows = only(tracer, made, others)
    assert held == MANY + (not below)
    assert [row["cgroup"] for row in rows] == [
        f"{inner(parent, FULL)}/g{n}" for n in (0, 1, 4999, 5001, 9998)
    ]


@pytest.fixture
def parent() -> Iterator[Path]:
    """Where many are made."""
    with new_cgroup(FULL) as path:
        yield path


def at(group: Path, port: int) -> list[Row]:
    return run("connect", "127.0.0.1", port, cgroups=(group,))


def test_thousand_cgroups_on_the_command_line(parent: Path, port: int) -> None:
    with many_cgroups(parent, 2000) as groups:
        given = [word for each in groups[::2] for word in ("--cgroup", str(each))]
        with tracing("-c", "--by", "selected", *given) as tracer:
            for number in (0, 1, 2, 999, 1000, 1998, 1999):
                at(groups[number], port)
            rows = tracer.stop()
    wanted = {str(groups[number]): 1 for number in (0, 2, 1000, 1998)}
    assert {row["selected"]: row["count"] for row in rows} == wanted


# -- ids that come twice


class Twins(NamedTuple):
    """Cgroups of two hierarchies with one id."""

    v1: Path
    v2: Path


def next_id(parent: Path, name: str) -> tuple[Path, int]:
    path = parent / name
    path.mkdir()
    return path, cgroup_id(path)


def make_twins(one: Path, other: Path) -> Twins:
    """The hierarchy that is behind makes cgroups until it has the id of one that is ahead."""
    ahead: dict[int, Path] = {}
    names = (f"t{number}" for number in itertools.count())
    path, number = next_id(one, next(names))
    ahead[number] = path
    highest = number
    for _ in range(MAX_MADE):
        path, number = next_id(other, next(names))
        if number in ahead:
            return Twins(ahead[number], path)
        path.rmdir()
        while number >= highest:
            path, highest = next_id(one, next(names))
            ahead[highest] = path
    raise AssertionError(f"no id came twice up to {number}")


@contextmanager
def twins() -> Iterator[Twins]:
    """One of v1, one of v2; which hierarchy is ahead is as it is."""
    with ExitStack() as stack:
        v1, v2 = (stack.enter_context(new_cgroup(each)) for each in (V1, V2))
        if cgroup_id(v1) > cgroup_id(v2):
            yield make_twins(v1, v2)
        else:
            found = make_twins(v2, v1)
            yield Twins(found.v2, found.v1)


@pytest.mark.skipif(HIERARCHY != V1, reason="this host has no v1 memory hierarchy")
def test_an_id_of_two_hierarchies_is_two_cgroups(port: int, v1: Path, v2: Path) -> None:
    """Each is selected beside an unrelated one, so that the programs look at both hierarchies."""
    with twins() as pair:
        assert cgroup_id(pair.v1) == cgroup_id(pair.v2)
        with (
            tracing("--cgroup", str(pair.v1), "--cgroup", str(v2)) as of_v1,
            tracing("--cgroup", str(pair.v2), "--cgroup", str(v1)) as of_v2,
        ):
            in_v1, in_v2 = at(pair.v1, port), at(pair.v2, port)
            (one,) = only(of_v1, in_v1, in_v2)
            (two,) = only(of_v2, in_v2, in_v1)
    assert (one["hierarchy"], one["cgroup"]) == ("memory", inner(pair.v1, V1))
    assert (two["hierarchy"], two["cgroup"]) == ("v2", inner(pair.v2, V2))
    assert one["cgroup_id"] == two["cgroup_id"]
