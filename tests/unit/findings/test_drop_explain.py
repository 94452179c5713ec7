# SPDX-License-Identifier: BSD-2-Clause
"""What is told beside the rows of drops: each kind once, and so that no two lines read the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.findings import drop_explain
from cgnet.findings.drop_explain import Diagnosis

if TYPE_CHECKING:
    import pytest


class Rows:
    """A schema whose rows are what they are."""

    def row(self, row: dict[str, Any]) -> dict[str, Any]:
        return row


def _row(**values: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("container", "pod", "cgroup", "dport"))
    return nothing | {"reason": "PROTO_MEM", "netns": 1, "count": 2} | values


def _told(monkeypatch: pytest.MonkeyPatch, *rows: dict[str, Any]) -> list[str]:
    monkeypatch.setattr(drop_explain.evidence, "namespaces", dict)
    companion = Diagnosis(explain=True)
    companion.see(Rows(), list(rows))  # type: ignore[arg-type]
    return [companion.text(record) for record in companion.records()]


def test_lines_for_one_owner_in_two_places_name_them(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _told(monkeypatch, _row(container="web"), _row(container="web", netns=2))
    assert [line.partition(":")[0] for line in told] == [
        "2 PROTO_MEM, web in network namespace 1, which is gone",
        "2 PROTO_MEM, web in network namespace 2, which is gone",
    ]


def test_one_place_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (told,) = _told(monkeypatch, _row(container="web"), _row(container="web"))
    assert told.startswith("4 PROTO_MEM, web: ")


def test_of_an_unknown_owner_the_place_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    (told,) = _told(monkeypatch, _row())
    assert told.startswith("2 PROTO_MEM, unknown owner in network namespace 1, which is gone: ")


def test_evidence_that_may_go_is_read_when_the_first_drop_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([("first", {"sockets": []}), ("later", {})])
    monkeypatch.setattr(drop_explain, "advise", lambda *_: next(answers))
    (told,) = _told(monkeypatch, _row(reason="SOCKET_FILTER"), _row(reason="SOCKET_FILTER"))
    assert "first" in told


def test_advice_without_evidence_is_made_when_it_is_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([("first", {}), ("later", {"programs": []})])
    monkeypatch.setattr(drop_explain, "advise", lambda *_: next(answers))
    (told,) = _told(monkeypatch, _row(reason="SOCKET_FILTER"))
    assert "later" in told
