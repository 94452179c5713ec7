# SPDX-License-Identifier: BSD-2-Clause
"""The output of a run: rows, counts, notices and the summary; and losses of the output."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING, Any

from cgnet.records.schema import SCHEMA, CountSchema, Schema
from cgnet.render import columns_of_counts, make_blocks, make_drawings, make_renderer
from cgnet.run import output
from cgnet.run.output import STALLED, Writer, cannot_write, tell

if TYPE_CHECKING:
    from cgnet.counting.counts import Counts
    from cgnet.render import Renderer
    from cgnet.run.command import Command, Options
    from cgnet.run.losses import Losses
    from cgnet.run.output import Patience

STDOUT = 1
WHOLE_INTERVAL = 0.9  # of an interval: counts of less don't replace the last ones
ROWS_AT_ONCE = 256  # more text doesn't stay in the cache until it is written: half as fast


def _for_people(options: Options) -> bool:
    return options.output in ("table", "wide")


class Printer:
    """Renders to standard output. ``records`` is the number of rows written."""

    def __init__(
        self,
        command: Command,
        options: Options,
        schema: Schema | CountSchema,
        *,
        counts: Counts | None,
        losses: Losses,
        patience: Patience,
    ) -> None:
        """Choose a renderer. Raises UsageError for unknown fields."""
        self._options, self._losses, self.schema = options, losses, schema
        self._clock = schema.clock
        self._renderer = self._make_renderer(command, counts)
        self.fd = STDOUT
        self._out = Writer(STDOUT, patience)
        self._interval_began = 0.0  # of the monotonic clock, in seconds
        self._drawn = False  # whether counts were drawn on a terminal
        self.records = 0

    def _make_renderer(self, command: Command, counts: Counts | None) -> Renderer:
        options, schema, terminal = self._options, self.schema, os.isatty(STDOUT)
        columns, fields = command.columns, options.fields
        if counts and isinstance(schema, CountSchema):
            if counts.draws and _for_people(options):
                return make_drawings(
                    schema, fields, geometric=counts.geometric, milliseconds=command.draws_milliseconds,
                    terminal=terminal, whole=options.output == "wide",
                )  # fmt: skip
            columns = columns_of_counts(counts.shown)
            fields = fields or (list(schema.fields) if options.output == "json" else None)
        elif command.draws_blocks and _for_people(options) and isinstance(schema, Schema):
            return make_blocks(schema, fields, fitted=options.output == "table" and terminal)
        return make_renderer(
            options.output, schema, fields, columns, terminal=terminal, header=not options.no_header
        )

    @property
    def left_out(self) -> list[str]:
        """The columns that this terminal is too narrow for."""
        return self._renderer.left_out

    @property
    def problem(self) -> str:
        """Why the output takes no more data; "" if it does."""
        return self._out.problem

    def begin(self) -> None:
        """Write the text before rows. A pipe gets only the header: its reader may want no more."""
        self._interval_began = time.monotonic()
        later = stat.S_ISREG(os.fstat(STDOUT).st_mode)
        self._write(self._renderer.begin() if later else self._renderer.header())

    def finish(self) -> None:
        """Write the text after the rows."""
        self._write(self._renderer.finish())

    def close(self) -> None:
        """Close the writer."""
        self._out.close()

    def raise_problem(self) -> None:
        """Raise CgnetError if writing failed, unless the output only stalled."""
        if self._out.problem not in ("", STALLED):
            raise cannot_write(self._out.problem)

    def _write(self, text: str) -> bool:
        """Write text; return whether it isn't empty and was written completely."""
        data = output.encode(text)
        return self._out.write(data) == len(data) > 0

    def run_record(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Return a record about the run itself."""
        ts_ns = time.monotonic_ns()
        head = {"schema": SCHEMA, "type": kind, "time": self._clock.text(ts_ns), "ts_ns": ts_ns}
        return {**head, **fields}

    def notice(self, row: dict[str, Any]) -> bool:
        """Write an additional record; return False where the output has no place for it."""
        return self._write(self._renderer.notice(row))

    def rows(self, rows: list[Any]) -> None:
        """Write rows."""
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            self._write_rows(rows[begin : begin + ROWS_AT_ONCE])

    def _write_rows(self, rows: list[Any], *, screen: bool = False) -> None:
        """Write rows, or a ``screen`` of them, and count them: lost if the output takes no more."""
        shown = len(rows)
        render = self._renderer.screen if screen else self._renderer.rows
        if self._out.problem:
            shown = 0
        else:
            above = "" if screen else self._renderer.above(rows)
            data = output.encode(above + render(rows))
            taken = self._out.write(data)
            if taken < len(data):
                shown = output.whole(rows, lambda some: above + render(some), taken)
        self.records += shown
        self._losses.add("output", len(rows) - shown)

    def counts(self, rows: list[dict[str, Any]]) -> None:
        """Write rows of counts; a terminal keeps a whole interval rather than show part of one."""
        interval, began = self._options.interval, self._interval_began
        self._interval_began = time.monotonic()
        if not interval or not self._renderer.redraws:
            self._write_rows(rows)
            return
        lasted = self._interval_began - began
        if self._drawn and lasted < WHOLE_INTERVAL * interval:
            if rows:
                tell(f"the last {lasted:.1f} s aren't shown: they are no whole interval")
            return
        self._drawn = True
        self._write_rows(rows, screen=True)
