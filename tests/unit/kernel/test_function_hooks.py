# SPDX-License-Identifier: BSD-2-Clause
"""Which functions a kernel lets programs look at, and what is said of the others."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from cgnet.errors import LibbpfError
from cgnet.kernel import function_hooks, probes, variants
from cgnet.kernel.function_hooks import WAYS, Row
from cgnet.kernel.probes import FENTRY, KPROBE, Answer
from cgnet.run.launch import functions_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.kernel.probes import Feature

    Kernel = Callable[..., list[tuple[str, str]]]

NO = Answer(ok=False, why="not attached: No such file or directory")
YES = Answer(ok=True)
KINDS = ("fentry", "kprobe")


def table(*places: tuple[str, str, str]) -> list[Row]:
    """Make rows as the object has them: for each function both kinds."""
    return [Row(*place, kind, f"{'__'.join(place)}__{kind}") for place in places for kind in KINDS]


IP = table(
    ("ip_rcv", "v4", "ip_rcv_core"), ("ip_rcv", "v4", "ip_rcv"), ("ip_rcv", "v6", "ipv6_rcv")
)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Make a kernel that lacks some features, and refuses some functions by some ways."""

    def make(*lacks: Feature, refuses: tuple[tuple[str, str], ...] = ()) -> list[tuple[str, str]]:
        asked: list[tuple[str, str]] = []

        def trial_at(way: str, function: str) -> Answer:
            asked.append((way, function))
            return NO if (way, function) in refuses else YES

        monkeypatch.setattr(variants, "require_capabilities", lambda: None)
        monkeypatch.setattr(probes, "trial", lambda feature: NO if feature in lacks else YES)
        monkeypatch.setattr(probes, "trial_at", trial_at)
        return asked

    return make


def test_the_table_is_in_the_object() -> None:
    rows = function_hooks.read(functions_path("trace"))
    places: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        assert row.program == f"{row.stage}__{row.part}__{row.function}__{row.kind}"
        if row.kind == "fentry":
            places.setdefault((row.stage, row.part), []).append(row.function)
    assert places == {
        ("ip_out", "v4"): ["ip_output"],
        ("ip_out", "v6"): ["ip6_output"],
        ("ip_rcv", "v4"): ["ip_rcv_core", "ip_rcv"],
        ("ip_rcv", "v6"): ["ip6_rcv_core", "ipv6_rcv"],
        ("tcp_rcv", "v4"): ["tcp_v4_rcv"],
        ("tcp_rcv", "v6"): ["tcp_v6_rcv"],
        ("tcp_backlog", "both"): ["tcp_add_backlog"],
        ("sock_queue", "both"): ["tcp_queue_rcv", "tcp_data_queue"],
        ("netfilter", "both"): ["nf_hook_slow"],
    }
    kinds = {row.kind for row in rows if row.stage == "netfilter"}
    assert kinds == {"fentry", "fexit", "kprobe", "kretprobe"}


def test_the_first_function_is_taken_by_the_best_way(kernel: Kernel) -> None:
    asked = kernel()
    found = function_hooks.choose(IP)
    assert found.programs == {
        "ip_rcv__v4__ip_rcv_core__fentry": "fentry",
        "ip_rcv__v6__ipv6_rcv__fentry": "fentry",
    }
    assert found.unseen == {}
    assert asked == [("fentry", "ip_rcv_core"), ("fentry", "ipv6_rcv")]


def test_a_way_that_the_kernel_lacks_is_tried_at_no_function(kernel: Kernel) -> None:
    asked = kernel(FENTRY, KPROBE)
    assert set(function_hooks.choose(IP).programs.values()) == {"kprobe.multi"}
    assert {way for way, _ in asked} == {"kprobe.multi"}


def test_what_is_refused_is_looked_for_elsewhere(kernel: Kernel) -> None:
    refused = (*((way, "ip_rcv_core") for way in WAYS), ("fentry", "ip_rcv"))
    kernel(refuses=refused)
    first = function_hooks.choose(IP).choices[0]
    assert (first.function, first.way) == ("ip_rcv", "kprobe.multi")
    assert first.why.count("No such file") == len(WAYS)


def test_a_stage_that_nothing_tells_of_has_one_name(kernel: Kernel) -> None:
    kernel(FENTRY, KPROBE, refuses=(("kprobe.multi", "ipv6_rcv"),))
    assert list(function_hooks.choose(IP).unseen) == ["ip_rcv of IPv6"]
    every = tuple(("kprobe.multi", row.function) for row in IP)
    kernel(FENTRY, KPROBE, refuses=every)
    (why,) = function_hooks.choose(IP).unseen.values()
    assert why == "; ".join((f"fentry: {NO.why}", f"kprobe.multi: {NO.why}", f"kprobe: {NO.why}"))
    assert list(function_hooks.choose(IP).unseen) == ["ip_rcv"]


def test_a_way_that_isnt_asked_for_isnt_taken(kernel: Kernel) -> None:
    kernel()
    assert set(function_hooks.choose(IP, ["kprobe"]).programs.values()) == {"kprobe"}
    none = function_hooks.choose(IP, [])
    assert (none.programs, none.unseen) == ({}, {"ip_rcv": "not asked for"})


def test_stages_that_are_missing_are_one_line_and_why_is_for_who_asks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    assert function_hooks.remarks({"ip_out": "no", "ip_rcv": "no", "sock_queue": "never"}) == [
        "not seen here: ip_out, ip_rcv, sock_queue; cgnet doctor tells why"
    ]
    assert "not seen here: ip_out, ip_rcv: no" in caplog.text
    assert "not seen here: sock_queue: never" in caplog.text
    assert function_hooks.remarks({}) == []


class Attaching:
    """Stands for an object: what it attaches, and how."""

    def __init__(self, error: LibbpfError | None = None) -> None:
        self.did: list[tuple[Any, ...]] = []
        self.error = error

    def attach(self, program: Any) -> None:
        self.did.append((program.name,))
        if self.error:
            raise self.error

    def attach_kprobe(self, program: Any, function: str, *, multi: bool) -> None:
        self.did.append((program.name, function, multi))


@pytest.mark.parametrize(
    ("way", "more"),
    [("fentry", ()), ("kprobe", ("ip_rcv", False)), ("kprobe.multi", ("ip_rcv", True))],
)
def test_each_way_attaches_as_it_must(way: str, more: tuple[Any, ...]) -> None:
    kind = "fentry" if way == "fentry" else "kprobe"
    name = f"ip_rcv__v4__ip_rcv__{kind}"
    program: Any = type("Program", (), {"name": name, "section": f"{kind}/ip_rcv"})
    obj: Any = Attaching()
    assert function_hooks.attach(obj, program, way) == {}
    assert obj.did == [(name, *more)]


def test_what_is_refused_after_all_is_named() -> None:
    program: Any = type("Program", (), {"name": "a__v4__f__fentry", "section": "fentry/f"})
    obj: Any = Attaching(LibbpfError("attach", errno.EBUSY))
    assert function_hooks.attach(obj, program, "fentry") == {"a": "f: Device or resource busy"}
