# SPDX-License-Identifier: BSD-2-Clause
"""The table of what works in which guest: made of results, put into a document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from subset import DOCTOR, LAYOUTS, PARTS
from table import (
    BEGIN,
    END,
    Cell,
    cell_of,
    put_between_marks,
    rows,
    rows_of_kernel,
    table,
    told_before,
    verdict,
)

ROOT = Path(__file__).resolve().parents[3]
EVERYWHERE = "tests/kernel/run/test_everywhere.py::test_"


def ended(name: str, outcome: str = "passed", transport: str = "ring", why: str = "") -> Any:
    return {"test": name, "outcome": outcome, "transport": transport, "why": why}


def guest(*tests: Any, lacks: str = "", refused: tuple[Any, ...] = ()) -> Any:
    commands = [{"name": "rtt", "refused": list(refused)}]
    return {
        "release": "6.9", "layout": "v2", "lacks": lacks, "doctor": {"commands": commands},
        "tests": list(tests),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        (f"{EVERYWHERE}rtt[tp_btf]", Cell("rtt", "tp_btf", "ring")),
        (f"{EVERYWHERE}rtt_samples[raw_tp]", Cell("rtt", "raw_tp", "ring")),
        (f"{EVERYWHERE}connect_counts[raw_tp]", Cell("connect", "raw_tp", "ring")),
        (f"{EVERYWHERE}connlat[raw_tp]", Cell("connlat", "raw_tp", "ring")),
        (
            "tests/kernel/trace/test_trace_path.py::test_loopback[tp_btf-4]",
            Cell("trace", "tp_btf", "ring"),
        ),
        (
            "tests/kernel/trace/test_trace_functions.py::test_a_routed_packet[kprobe.multi-6]",
            Cell("trace", "kprobe.multi", "ring"),
        ),
        (f"tests/kernel/run/test_doctor_run.py::test_{DOCTOR[0]}", Cell("doctor", "-", "-")),
        ("tests/kernel/drop/test_drop_sockets.py::test_it[raw_tp]", Cell("drop", "raw_tp", "ring")),
        ("tests/kernel/test_other.py::test_it[raw_tp]", Cell("?", "raw_tp", "ring")),
    ],
)
def test_a_test_has_its_place(name: str, cell: Cell) -> None:
    assert cell_of(ended(name)) == cell


def test_a_verdict_counts_and_names_what_failed() -> None:
    tests = [
        ended("a.py::test_one"),
        ended("a.py::test_two", "failed", why="no rows"),
        ended("a.py::test_three", "skipped", why="no v1 | here"),
    ]
    said = verdict(tests)
    assert said == "**1 failed**: `test_two`; 1 passed; 1 not there: no v1 \\| here"


def test_rows_are_in_the_order_of_commands_typed_hooks_first() -> None:
    names = ("rtt[raw_tp]", "connect[raw_tp]", "rtt[tp_btf]", "connect[tp_btf]")
    made = rows(guest(*(ended(f"{EVERYWHERE}{name}") for name in names)))
    assert [row[2:6] for row in made] == [
        ("connect", "tp_btf", "ring", "slots"),
        ("connect", "raw_tp", "ring", "hash"),
        ("rtt", "tp_btf", "ring", "storage"),
        ("rtt", "raw_tp", "ring", "hash"),
    ]


def test_what_the_kernel_refuses_is_told_with_its_reason() -> None:
    refused = {"part": "hook", "way": "tp_btf", "why": "compare_and_swap: not loaded"}
    other = {"part": "transport", "way": "ring buffer", "why": "no"}
    made = rows(guest(refused=(refused, other)))
    assert made == [
        ("6.9", "v2", "rtt", "tp_btf", "-", "storage", "not there: compare_and_swap: not loaded")
    ]


def test_a_layout_that_is_not_there_is_one_row() -> None:
    assert [row[2:] for row in rows(guest(lacks="no memory controller"))] == [
        ("all", "-", "-", "-", "not there: no memory controller")
    ]


def test_the_table_stands_between_its_marks_and_the_rest_stays() -> None:
    made = table(rows(guest(ended(f"{EVERYWHERE}rtt[raw_tp]"))))
    text = put_between_marks(f"before\n{BEGIN}\nold\n{END}\nafter\n", made)
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "| 6.9 | v2 | rtt | raw_tp | ring | hash | 1 passed |" in text
    assert put_between_marks(text, made) == text


def test_ratios_are_told_of_guests_that_measured() -> None:
    costs = {
        "connect": {"tp_btf": 50.0, "raw_tp": 100.0, "perf": 150.0, "libbpf-tools": 200.0,
                    "bpftrace": "it ended"},
        "trace": {"fentry": 10.0, "kprobe": 40.0, "kprobe.multi": "refused"},
    }  # fmt: skip
    made = table(rows_of_kernel("6.x", {"v2": guest() | {"costs": costs}, "v1": guest()}, []))
    assert "| 6.9 | `connect` | 0.50 | 1.50 |  |  | 4.00 | - |\n" in made
    assert "| 6.9 | `trace` |  |  | 0.25 | - |  |  |\n" in made
    assert "perf / ring" not in table(rows(guest()))


def test_what_is_left_of_the_rate_is_told_of_guests_that_measured() -> None:
    rates = {"trace": 0.812, "trace --summary": 0.95, "pwru": "ended with 1: no libpcap"}
    made = table(rows_of_kernel("6.x", {"v2": guest() | {"rates": rates}, "v1": guest()}, []))
    assert "| kernel | `trace` | `trace --functions none` | `trace --summary` | `pwru` |\n" in made
    assert "| 6.9 | 0.81 | - | 0.95 | - |\n" in made
    assert "pwru" not in table(rows(guest()))


def test_what_is_not_tried_again_stays() -> None:
    costs = {"connect": {"tp_btf": 50.0, "raw_tp": 100.0}}
    measured = {"costs": costs, "rates": {"pwru": 0.2}}
    first = guest(ended(f"{EVERYWHERE}rtt[raw_tp]")) | measured
    second = guest(lacks="a | b") | {"layout": "v1", "release": "6.9.1"}
    of_six = rows_of_kernel("6.x", {"v2": first, "v1": second}, [])
    of_others = rows_of_kernel("6.10", {"v2": first | {"release": "6.10.1"}}, [])
    text = put_between_marks(f"{BEGIN}\n{END}", table(of_six + of_others))
    before = told_before(text)
    assert rows_of_kernel("6.10", {}, before) == of_others
    assert rows_of_kernel("6.1", {}, before) == []
    again = guest(ended(f"{EVERYWHERE}rtt[raw_tp]", "failed"))
    merged = rows_of_kernel("6.x", {"v2": again}, before)
    assert merged[0][-1] == "**1 failed**: `test_rtt[raw_tp]`"
    assert ("6.9.1", "v1", "all", "-", "-", "-", "not there: a \\| b") in merged
    assert [row for row in merged if row[1] == "`connect`"]
    assert ("6.9", "-", "-", "-", "0.20") in merged


def test_a_document_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="make test-vm"):
        put_between_marks("nothing", "")


@pytest.mark.parametrize(
    "name", [name for part in PARTS.values() for tests in part.values() for name in tests]
)
def test_every_test_of_the_subset_is_there(name: str) -> None:
    file, _, function = name.partition("::")
    function = function.partition("[")[0]
    assert f"def {function}(" in (ROOT / "tests/kernel" / file).read_text()


def test_the_document_has_the_marks() -> None:
    text = (ROOT / "docs/kernels.md").read_text()
    assert put_between_marks(text, "")
    assert LAYOUTS[0] == "v2"
