# SPDX-License-Identifier: BSD-2-Clause
"""Stacks as tools for flame graphs read them."""

from __future__ import annotations

from typing import Any

from cgnet.render.folded import LOST, Folded

HEAD = {"schema": 2, "type": "drop", "time": "", "ts_ns": 1}


def row(stack: tuple[str, ...], count: int, **keys: Any) -> dict[str, Any]:
    return {**HEAD, **keys, "stack": stack, "count": count}


def test_outermost_first_without_offsets() -> None:
    owner = {"container": "web", "pod": "shop", "pod_namespace": "eu", "cgroup": None}
    rows = [row(("inner+0x1f [mod]", "outer+0x2"), 3, **owner)]
    assert Folded().rows(rows) == "shop/web;outer;inner 3\n"


def test_places_in_one_function_are_one_and_the_greatest_comes_first() -> None:
    rows = [row(("a+0x1",), 2), row(("b+0x1",), 4), row(("a+0x2",), 3)]
    assert Folded().rows(rows) == "a 5\nb 4\n"


def test_what_else_is_counted_by_comes_in_front() -> None:
    keys = {"container": None, "cgroup": "/shop", "reason": "NO_SOCKET"}
    assert Folded().rows([row(("a+0x1",), 1, **keys)]) == "/shop;reason NO_SOCKET;a 1\n"


def test_an_unknown_owner_and_a_lost_stack() -> None:
    rows = [row((), 1, container=None, cgroup=None)]
    assert Folded().rows(rows) == f"[unknown owner];{LOST} 1\n"


def test_names_are_no_separators() -> None:
    rows = [row(("a+0x1",), 1, container="x;y\n", cgroup=None)]
    assert Folded().rows(rows) == "x:y\\n;a 1\n"


def test_nothing_else_is_printed() -> None:
    folded = Folded()
    assert (folded.header(), folded.clear(), folded.notice(HEAD)) == ("", "", "")
