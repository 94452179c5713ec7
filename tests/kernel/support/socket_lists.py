# SPDX-License-Identifier: BSD-2-Clause
"""What ``cgnet sockets`` lists."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness import cgnet

if TYPE_CHECKING:
    from harness import Row

FLOW = ("saddr", "sport", "daddr", "dport")


def listed(*arguments: str, **how: Any) -> tuple[list[Row], Row]:
    """Return the rows of ``cgnet sockets``, and the summary."""
    done = cgnet("sockets", "-o", "json", *arguments, **how)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [row for row in rows if row["type"] == "sockets"], rows[-1]


def by_flow(rows: list[Row]) -> dict[tuple[object, ...], Row]:
    return {tuple(row[field] for field in FLOW): row for row in rows}
