# SPDX-License-Identifier: BSD-2-Clause
"""The output of a run: rows, counts, notices and the summary; and losses of the output."""

from __future__ import annotations

import logging
import os
import stat
import time
from typing import TYPE_CHECKING, Any

from cgnet.kernel import variants
from cgnet.records.schema import SCHEMA, CountSchema, Schema
from cgnet.render import columns_of_counts, make_blocks, make_drawings, make_renderer
from cgnet.run import output
from cgnet.run.output import STALLED, Writer, cannot_write, tell

if TYPE_CHECKING:
    from cgnet.counting.counts import Counts
    from cgnet.render import Renderer
    from cgnet.run.command import Command, Options
    from cgnet.run.output import Patience
    from cgnet.run.signal import Signal

log = logging.getLogger(__name__)

STDOUT = 1
PARTS = ("hook", "transport", "ledger")  # of what runs, for the summary
WHOLE_INTERVAL = 0.9  # of an interval: counts of less don't replace the last ones
ROWS_AT_ONCE = 256  # more text doesn't stay in the cache until it is written: half as fast


def _summed(item: tuple[str, int | dict[str, int]]) -> str:
    """Return a command's field of the summary as text for people."""
    name, number = item
    if not isinstance(number, dict):
        return f", {number} {name}"
    parts = ", ".join(f"{each} {count}" for each, count in number.items())
    return f", {sum(number.values())} {name} ({parts})" if number else ""


def _for_people(options: Options) -> bool:
    return options.output in ("table", "wide")


class Printer:
    """Renders to standard output. ``records`` is the number of rows written."""

    def __init__(self, signal: Signal, options: Options, patience: Patience) -> None:
        """Choose a renderer. Raises UsageError for unknown fields."""
        self._signal, self._options = signal, options
        self._renderer = self._make_renderer(signal.command, signal.counts)
        self.fd = STDOUT
        self._out = Writer(STDOUT, patience)
        self._interval_began = 0.0  # of the monotonic clock, in seconds
        self._drawn = False  # whether counts were drawn on a terminal
        self.records = 0

    def _make_renderer(self, command: Command, counts: Counts | None) -> Renderer:
        options, schema, terminal = self._options, self._signal.schema, os.isatty(STDOUT)
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

    def say_left_out(self) -> None:
        """Print the columns that this terminal is too narrow for."""
        if names := ", ".join(self._renderer.left_out):
            tell(f"this terminal is too narrow for {names}; -o wide cuts nothing")

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

    def _run_record(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Return a record about the run itself."""
        ts_ns, clock = time.monotonic_ns(), self._signal.schema.clock
        return {"schema": SCHEMA, "type": kind, "time": clock.text(ts_ns), "ts_ns": ts_ns, **fields}

    def _notice(self, row: dict[str, Any]) -> bool:
        """Write an additional record; return False where the output has no place for it."""
        return self._write(self._renderer.notice(row))

    def notices(self) -> None:
        """Write the command's additional records, or print them on standard error."""
        for record in self._signal.command.notices():
            row = self._run_record(record.pop("type"), **record)
            if not self._notice(row):
                tell(self._signal.command.notice_text(row))

    def lost(self) -> None:
        """Report the losses since the last call."""
        for loss in self._signal.losses.look(self._signal.obj):
            tell(str(loss))
            self._notice(self._run_record("lost", count=loss.number, where=loss.where))

    def summary(self) -> None:
        """Write the summary, or print it on standard error."""
        signal = self._signal
        lost, unknown, runs = signal.losses.total, signal.unknown_owners, signal.runs
        ends = signal.named_ends.summary if signal.named_ends else {}
        more = {**signal.command.summary(signal.obj), **ends}
        counted = {"records": self.records, "lost": lost, "unknown_owners": unknown, **more}
        if not self._notice(self._run_record("summary", **counted, **runs)):
            also = "".join(map(_summed, more.items()))
            if variants.is_second_best(runs) or log.isEnabledFor(logging.INFO):
                also += f"; by {', '.join(runs[name] for name in PARTS if name in runs)}"
            tell(f"{self.records} records, {lost} lost, {unknown} of unknown owners{also}")

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
        self._signal.losses.add("output", len(rows) - shown)

    def counts(self) -> None:
        """Write the counts since the last call, if the run counts."""
        if not self._signal.counts:
            return
        head = self._run_record(self._signal.command.name)
        rows = [head | row for row in self._signal.collect()][: self._options.limit]
        self._write_counts(rows)
        self._signal.command.on_rows(self._signal.schema, rows)

    def _write_counts(self, rows: list[dict[str, Any]]) -> None:
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
