# SPDX-License-Identifier: BSD-2-Clause
"""Rows of ``cgnet life`` by the local port of a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import wait_until

if TYPE_CHECKING:
    from harness import Row, Tracer


def within(netns: str) -> tuple[str, str]:
    """Return the filter for a namespace of the test's own: other ones have the same ports."""
    return "--netns", f"/run/netns/{netns}"


def rows_of(tracer: Tracer, port: int, opened: bool = False) -> list[Row]:
    return [row for row in tracer.rows() if row["sport"] == port and row["open"] == opened]


def the_end(tracer: Tracer, port: int) -> Row:
    """Wait for the only row of the connection's end, and return it."""
    (row,) = wait_until(lambda: f"the end of {port}: {tracer}", lambda: rows_of(tracer, port))
    return dict(row)
