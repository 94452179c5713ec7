# SPDX-License-Identifier: BSD-2-Clause
"""The score of `cgnet why` on faults: what counts as right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from case import Case, Trouble
from score import BROKEN, NOT_RUN, RIGHT, WRONG, Result, is_ours, judge, passed, totals

FAULT = Case("no-listener", "no-listener/nobody", lambda _: iter(()))
HEALTHY = Case("", "healthy/idle", lambda _: iter(()))
OWNER: Any = SimpleNamespace(name="client-1")


def trouble(**also: Any) -> Trouble:
    return Trouble("ECONNREFUSED", lambda: True, (OWNER,), ("10.0.0.2",), 80, **also)


def finding(**values: Any) -> dict[str, Any]:
    usual = {"id": "no-listener", "rank": 1, "severity": "error", "cgroup": "/x/client-1"}
    return {**usual, "daddr": "10.0.0.2", "dport": 80, "text": "told", **values}


def judged(case: Case, *findings: dict[str, Any], of: Trouble | None = None) -> Result:
    result = Result(case.name, case.id, 4, "before")
    judge(result, of or trouble(), case, findings)
    return result


def test_right_id_and_owner() -> None:
    result = judged(FAULT, finding(rank=2, id="path-loss"), finding())
    assert (result.verdict, result.right_owner, result.right_place) == (RIGHT, True, True)


def test_another_id_may_be_as_right() -> None:
    assert judged(FAULT, finding(id="other"), of=trouble(ids=("other",))).verdict == RIGHT


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"id": "path-loss"}, "found path-loss: told"),
        ({"cgroup": "/server-1"}, "owner server-1, not client-1"),
        ({"cgroup": None}, "owner unknown, not client-1"),
    ],
)
def test_wrong(values: dict[str, Any], told: str) -> None:
    result = judged(FAULT, finding(**values))
    assert (result.verdict, result.why_not) == (WRONG, told)


def test_its_own_finding_comes_later() -> None:
    result = judged(FAULT, finding(id="path-loss"), finding(rank=2))
    assert "its own is number 2" in result.why_not


def test_nothing_found() -> None:
    assert judged(FAULT).verdict == WRONG


def test_healthy_traffic_may_be_told_of_but_not_warned_of() -> None:
    assert judged(HEALTHY).verdict == RIGHT
    assert judged(HEALTHY, finding(severity="info")).verdict == RIGHT
    assert judged(HEALTHY, finding(severity="warning")).verdict == WRONG


def test_strangers_are_those_of_other_cgroups_and_namespaces() -> None:
    assert is_ours(finding(), {"client-1"}, set())
    assert is_ours(finding(cgroup="/other", peer_cgroup="/client-1"), {"client-1"}, set())
    assert not is_ours(finding(cgroup="/other", netns=7), {"client-1"}, {8})
    assert is_ours(finding(cgroup=None, netns=8), {"client-1"}, {8})
    assert is_ours(finding(cgroup=None), {"client-1"}, {8})


def result(verdict: str, finding_id: str = "x") -> Result:
    return Result("x/y", finding_id, 4, "before", verdict)


def test_score_is_counted_over_all() -> None:
    results = [*[result(RIGHT)] * 9, result(NOT_RUN)]
    assert totals(results) == ["faults: 9 of 10 right (90%), 100% of 9 that ran; 1 not run"]
    assert passed(results)
    assert not passed([*results, result(WRONG)])
    assert not passed([*results, result(BROKEN)])


def test_a_warning_on_healthy_traffic_fails() -> None:
    assert not passed([result(RIGHT), result(WRONG, "")])
