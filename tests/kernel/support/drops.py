# SPDX-License-Identifier: BSD-2-Clause
"""Helpers for tests of ``cgnet drop``: rows by owner, packet and place."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness import Row, Tracer, tracing, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from two_containers import Place


class Drops:
    """A running ``cgnet drop -o json``."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def of(self, **wanted: Any) -> list[Row]:
        """Return the rows with these values."""
        return [row for row in self.tracer.rows() if wanted.items() <= row.items()]

    def one(self, function: str, **wanted: Any) -> Row:
        """Wait for a row with these values and this function in its stack; return it."""

        def found() -> list[Row]:
            return [row for row in self.of(**wanted) if function in functions(row)]

        def told() -> str:
            brief = (
                "reason",
                "container",
                "owner_source",
                "netns",
                "dport",
                "location",
                "direction",
            )
            rows = [
                row
                for row in self.tracer.rows()
                if row["netns"] == wanted.get("netns", row["netns"])
            ]
            seen = [{key: row[key] for key in brief} for row in rows[-20:]]
            return f"{function} {wanted} among {seen} {self.tracer.said}"

        row: Row = wait_until(told, found)[0]
        return row


def functions(row: Row) -> list[str]:
    """Return the functions of a row's stack."""
    return [frame.partition("+")[0].partition(".")[0] for frame in row["stack"]]


def owned(place: Place, source: str = "netns") -> Row:
    """Return the fields of a drop that a container owns."""
    return {"container": place.container, "owner_source": source}


@contextmanager
def dropping(*arguments: str, **how: Any) -> Iterator[Drops]:
    with tracing(*arguments, command="drop", **how) as tracer:
        yield Drops(tracer)


def of(place: Place) -> tuple[str, str]:
    """Return the filter for drops in a namespace."""
    return "--netns", str(place.inode)


def last(tracer: Tracer) -> Row:
    """End the tracer; return its summary."""
    tracer.stop()
    return tracer.rows("summary")[-1]
