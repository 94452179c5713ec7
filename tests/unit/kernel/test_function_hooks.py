# SPDX-License-Identifier: BSD-2-Clause
"""Which functions a kernel lets programs look at, and what is said of the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cgnet.kernel import function_hooks, probes, variants
from cgnet.kernel.function_hooks import WAYS
from cgnet.kernel.probes import FENTRY, KPROBE, Answer
from cgnet.kernel.variants import choose
from cgnet.run.launch import functions_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cgnet.kernel.probes import Feature
    from cgnet.kernel.variants import Chosen

    Kernel = Callable[..., list[tuple[str, str]]]

NO = Answer(ok=False, why="not attached: No such file or directory")
YES = Answer(ok=True)
KINDS = ("fentry", "kprobe")


def table(*places: tuple[str, str, str]) -> list[Any]:
    """Make programs as the object has them: for each function both kinds."""
    return [
        SimpleNamespace(
            name=f"{'__'.join(place)}__{kind}", hook=kind, target=place[2], stage=place[:2]
        )
        for place in places
        for kind in KINDS
    ]


IP = table(
    ("ip_rcv", "v4", "ip_rcv_core"), ("ip_rcv", "v4", "ip_rcv"), ("ip_rcv", "v6", "ipv6_rcv")
)


def chosen(ways: Iterable[str] = WAYS) -> list[Chosen]:
    return list(choose(function_hooks.jobs(IP, ways)).values())


def programs(plan: list[Chosen]) -> dict[str, str]:
    """Return the way to attach each program."""
    found = [each.variant for each in plan if each.variant]
    return {name: each.code for each in found for name in each.programs}


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
    places = {
        job.name: list(dict.fromkeys(each.function for each in job.variants))
        for job in function_hooks.read(functions_path("trace"))
    }
    assert places == {
        "ip_out of IPv4": ["ip_output"],
        "ip_out of IPv6": ["ip6_output"],
        "ip_rcv of IPv4": ["ip_rcv_core", "ip_rcv"],
        "ip_rcv of IPv6": ["ip6_rcv_core", "ipv6_rcv"],
        "tcp_rcv of IPv4": ["tcp_v4_rcv"],
        "tcp_rcv of IPv6": ["tcp_v6_rcv"],
        "tcp_backlog": ["tcp_add_backlog"],
        "sock_queue": ["tcp_queue_rcv", "tcp_data_queue"],
        "netfilter": ["nf_hook_slow"],
    }


def test_a_variant_has_the_programs_of_its_function_and_way() -> None:
    found = {job.name: job for job in function_hooks.read(functions_path("trace"))}
    assert [(each.code, sorted(each.programs)) for each in found["netfilter"].variants] == [
        ("fentry", [f"netfilter__both__nf_hook_slow__{kind}" for kind in ("fentry", "fexit")]),
        ("kprobe.multi", kprobes := [
            f"netfilter__both__nf_hook_slow__{kind}" for kind in ("kprobe", "kretprobe")
        ]),
        ("kprobe", kprobes),
    ]  # fmt: skip
    first = found["ip_rcv of IPv4"].variants[0]
    assert first.programs == {"ip_rcv__v4__ip_rcv_core__fentry"}


def test_the_first_function_is_taken_by_the_best_way(kernel: Kernel) -> None:
    asked = kernel()
    found = chosen()
    assert programs(found) == {
        "ip_rcv__v4__ip_rcv_core__fentry": "fentry",
        "ip_rcv__v6__ipv6_rcv__fentry": "fentry",
    }
    assert function_hooks.unseen(found) == {}
    assert asked == [("fentry", "ip_rcv_core"), ("fentry", "ipv6_rcv")]


def test_a_way_that_the_kernel_lacks_is_tried_at_no_function(kernel: Kernel) -> None:
    asked = kernel(FENTRY, KPROBE)
    assert set(programs(chosen()).values()) == {"kprobe.multi"}
    assert {way for way, _ in asked} == {"kprobe.multi"}


def test_what_is_refused_is_looked_for_elsewhere(kernel: Kernel) -> None:
    refused = (*((way, "ip_rcv_core") for way in WAYS), ("fentry", "ip_rcv"))
    kernel(refuses=refused)
    first = chosen()[0]
    assert first.variant
    assert (first.variant.function, first.variant.code) == ("ip_rcv", "kprobe.multi")
    assert first.why.count("No such file") == len(WAYS)


def test_a_stage_that_nothing_tells_of_has_one_name(kernel: Kernel) -> None:
    kernel(FENTRY, KPROBE, refuses=(("kprobe.multi", "ipv6_rcv"),))
    assert list(function_hooks.unseen(chosen())) == ["ip_rcv of IPv6"]
    every = tuple(("kprobe.multi", each.target) for each in IP)
    kernel(FENTRY, KPROBE, refuses=every)
    unseen = function_hooks.unseen(chosen())
    assert unseen == {"ip_rcv": "; ".join(f"{way}: {NO.why}" for way in WAYS)}


def test_a_way_that_isnt_asked_for_isnt_taken(kernel: Kernel) -> None:
    kernel()
    assert set(programs(chosen(["kprobe"])).values()) == {"kprobe"}
    none = chosen([])
    assert (programs(none), function_hooks.unseen(none)) == ({}, {"ip_rcv": "not asked for"})


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
