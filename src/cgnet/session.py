# SPDX-License-Identifier: BSD-2-Clause
"""One run of a command: load, attach, pass records on until the end, say what was lost."""

from __future__ import annotations

import gc
import logging
import math
import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from cgnet import pipeline
from cgnet._layouts import HEAD, OwnerSource
from cgnet.cgroups import CgroupNames
from cgnet.counts import Counts
from cgnet.errors import ExitStatus
from cgnet.events import HEAD_PART, SCHEMA, Clock, CountSchema, Schema, source_of
from cgnet.filters import Filters
from cgnet.handovers import Handovers
from cgnet.launch import Extras, Launch
from cgnet.losses import Losses
from cgnet.netns_owners import ADDRESS_OWNERS, NETNS_OWNERS, NetnsOwners
from cgnet.newcomers import Newcomers
from cgnet.output import Writer
from cgnet.render import Renderer, make_blocks, make_drawings, make_renderer
from cgnet.runtimes import Runtimes

if TYPE_CHECKING:
    from cgnet.command import Command, Options
    from cgnet.ring import Reader

log = logging.getLogger(__name__)

STDOUT = 1
GC_THRESHOLD = 100_000
LOST_EVERY_S = 1.0
ROWS_AT_ONCE = 256  # the text of more doesn't stay in the cache until it is written: half as fast


def tell(message: str) -> None:
    """Say a line to the person at the terminal."""
    print(f"cgnet: {message}", file=sys.stderr, flush=True)  # noqa: T201


def _column(field: str) -> str:
    """Return the column that shows a field of counts to people."""
    return "owner" if field in ("container", "pod", "pod_namespace", "cgroup") else field


class Session:
    """A run, from the options to the exit status."""

    def __init__(
        self, command: Command, options: Options, extras: Extras, *, milliseconds: bool = False
    ) -> None:
        """Check the options. Raises UsageError; nothing is loaded yet.

        ``milliseconds``: histograms are drawn in them.
        """
        self._ms = milliseconds
        self.command = command
        self.options = options
        self.extras = extras
        self.filters = Filters(options.selection)
        self.names = CgroupNames(self.filters.hierarchies)
        self.runtimes = Runtimes()
        self.clock = Clock()
        self.counts: Counts | None = None
        if options.counting is not None:
            self.counts = Counts(options.counting, self.filters, self.names, self.runtimes)
        self.newcomers = Newcomers(self.filters, self.names, self.runtimes, tell)
        self.renderer = self._make_renderer()
        self.rate = pipeline.RateLimit(options.max_rate)
        self.out = Writer(STDOUT)
        self.records = 0
        self.unknown_owners = 0
        self.losses = Losses()
        self._netns_owners: NetnsOwners | None = None
        self._unseen: dict[str, str] | None = None  # stages that this kernel doesn't tell of
        self._baseline_ns = 0  # what was alive is told since then

    def _make_renderer(self) -> Renderer:
        options, command = self.options, self.command
        schema: Schema | CountSchema
        if self.counts:
            schema = CountSchema(command.name, self.clock, self.counts.fields)
            if self.counts.draws and options.output in ("table", "wide"):
                return make_drawings(
                    schema, options.fields, milliseconds=self._ms, terminal=os.isatty(STDOUT)
                )
            shown = ["time", *(_column(field) for field in self.counts.shown)]
            columns = dict.fromkeys(command.columns, tuple(dict.fromkeys(shown)))
            fields = options.fields or (list(schema.fields) if options.output == "json" else None)
        else:
            groups = command.groups(self.names, self.runtimes)
            schema = Schema(
                command.name, self.clock, groups, command.layouts[0].size, command.least
            )
            columns, fields = command.columns, options.fields
            if command.drawn and options.output in ("table", "wide"):
                return make_blocks(schema, fields)
        self._schema = schema
        return make_renderer(
            options.output,
            schema,
            fields,
            columns,
            terminal=os.isatty(STDOUT),
            header=not options.no_header,
        )

    # -- records

    def _wait_for_names(self) -> None:
        """At the end: it takes no longer than names are expected."""
        while self.newcomers.is_waiting or (self.counts and self.counts.is_waiting):
            time.sleep(pipeline.TICK_MS / 1000)
            self._emit([])
            self._print_counts()

    def _print_counts(self) -> None:
        if not self.counts:
            return
        head = self._run_record(self.command.name)
        rows = [head | row for row in self.counts.collect(self._obj)][: self.options.limit]
        self.records += len(rows)
        self.unknown_owners = self.counts.of_unknown_owners
        text = self.renderer.rows(rows)
        clear = self.renderer.clear()
        self.out.write(clear + (self.renderer.header() if clear else "") + text)
        if self.command.companion:
            self.command.companion.see(self._schema, rows)

    def _tell_more(self) -> None:
        """Say what the command has to say beside its rows."""
        companion = self.command.companion
        for record in companion.records() if companion else ():
            row = self._run_record(**record)
            text = self.renderer.notice(row)
            self.out.write(text)
            if companion and not text:
                tell(companion.text(row))

    def _emit(self, batch: list[bytes]) -> bool:
        """Write a batch; tell whether the limit is reached."""
        records = self.newcomers.pass_on(self._obj, batch)
        if self._baseline_ns:
            records = [raw for raw in records if not self._is_baseline(raw)]
        limit = self.options.limit
        if limit is not None:
            records = records[: limit - self.records]
        if records:
            taken = self.rate.take(len(records))
            self.losses.add("rate", len(records) - taken)
            records = records[:taken]
            self.records += len(records)
            self.unknown_owners += bytes(map(source_of, records)).count(OwnerSource.OWNER_UNKNOWN)
            for begin in range(0, len(records), ROWS_AT_ONCE):
                self.out.write(self.renderer.rows(records[begin : begin + ROWS_AT_ONCE]))
            if self.command.companion:
                self.command.companion.see(self._schema, records)
        return limit is not None and self.records >= limit and not self.counts

    def _tell_netns_owners(self) -> None:
        if self._netns_owners:
            self._netns_owners.follow(self.newcomers.births)

    def _tell_living(self) -> None:
        """Have the kernel side tell what goes on, where it can."""
        for name, program in self.command.living.items():
            self._obj.iterate_if_loaded(program, name)

    def _is_baseline(self, raw: bytes) -> bool:
        """Tell whether a record is of the look at the start, which deltas are counted from."""
        was_open = self.command.was_open
        ts_ns = HEAD.packed.unpack(raw[HEAD_PART])[2]
        return was_open is not None and ts_ns <= self._baseline_ns and was_open(raw)

    def _run_record(self, type: str, **fields: Any) -> dict[str, Any]:  # noqa: A002 - the field's name
        ts_ns = time.monotonic_ns()
        head = {"schema": SCHEMA, "type": type, "time": self.clock.text(ts_ns), "ts_ns": ts_ns}
        return {**head, **fields}

    def _check_lost(self) -> None:
        """Say what was lost since the last look, when it happens."""
        for loss in self.losses.look(self._obj):
            tell(str(loss))
            row = self._run_record("lost", count=loss.number, where=loss.where)
            self.out.write(self.renderer.notice(row))

    def _summary(self) -> None:
        lost, unknown, companion = self.losses.total, self.unknown_owners, self.command.companion
        more = companion.summary(self._obj) if companion else {}
        row = self._run_record(
            "summary", records=self.records, lost=lost, unknown_owners=unknown, **more
        )
        if self._unseen is not None:
            row["not_seen"] = list(self._unseen)
        text = self.renderer.notice(row)
        self.out.write(text)
        if not text:
            also = "".join(f", {number} {name}" for name, number in more.items())
            also += f"; not seen here: {', '.join(self._unseen)}" if self._unseen else ""
            tell(f"{self.records} records, {lost} lost, {unknown} of unknown owners{also}")

    # -- the run

    def run(self) -> ExitStatus:
        """Trace until the end. Raises CgnetError."""
        stop = pipeline.Stop(self.options.duration)
        with ExitStack() as cleanup:
            cleanup.callback(self.names.close)
            cleanup.callback(self.runtimes.close)
            signals = cleanup.enter_context(stop.on_signals())
            options, command = self.options, self.command
            launch = Launch(
                command.object, command.layouts, self.filters, options.buffer,
                counting=options.counting, measures=options.measures, contents=options.contents,
            )  # fmt: skip
            obj, extra = launch.start(self.extras, options.btf, options.hook, options.transport)
            self._obj = cleanup.enter_context(obj)
            ring = obj.ring("ring")
            if launch.follows_listeners(obj):
                cleanup.callback(Handovers(obj, self.filters).close)
            self.runtimes.learn(self.names.paths())
            naming = self.filters.hierarchies[0]
            self.filters.named.fill(obj.map("named_cgroups"), naming, self.runtimes)
            if obj.has_map(NETNS_OWNERS):
                addresses = obj.map(ADDRESS_OWNERS) if obj.has_map(ADDRESS_OWNERS) else None
                owners = obj.map(NETNS_OWNERS)
                self._netns_owners = NetnsOwners(self.runtimes, naming, owners, addresses)
            self._tell_netns_owners()
            if command.companion:
                command.companion.begin(obj)
            self._unseen = launch.unseen
            for line in launch.remarks(extra):
                tell(line)
            if options.interval:
                self._tell_living()
                self._baseline_ns = time.monotonic_ns()
            tell(f"tracing {self.command.name}; Ctrl-C ends it")
            # Records make no reference cycles: to look for some at each 700 objects costs 15 %.
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD)
            stop.start()
            try:
                self.out.write(self.renderer.header())
                self._trace(ring, stop, signals)
            except BrokenPipeError:
                return ExitStatus.DONE
        lost = self.losses.total
        return ExitStatus.EVENTS_LOST if lost and self.options.strict else ExitStatus.DONE

    def _trace(self, ring: Reader, stop: pipeline.Stop, signals: int) -> None:
        next_look = 0.0
        options = self.options
        interval = options.interval
        next_print = time.monotonic() + (interval or math.inf)
        ended = False
        for batch in pipeline.batches(ring, stop, signals, STDOUT):
            ended = self._emit(batch)
            if ended:
                break
            if time.monotonic() >= next_print:
                next_print += interval or math.inf
                self._print_counts()
                self._tell_more()
                self._tell_living()
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOST_EVERY_S
                self.clock.adjust()
                self.newcomers.forget(self._obj)
                self._tell_netns_owners()
                self._check_lost()
                if self.command.leftovers:
                    ended = self._emit(self.command.leftovers(self._obj, options, ended=False))
        self._log_costs()
        self._obj.detach()
        if not ended:
            self._emit_the_rest(ring)
        self._print_counts()
        self._wait_for_names()
        self._tell_more()
        self._check_lost()
        self._summary()

    def _emit_the_rest(self, ring: Reader) -> None:
        for batch in pipeline.drain(ring):
            if self._emit(batch):
                return
        if self.command.leftovers:
            self._emit(self.command.leftovers(self._obj, self.options, ended=True))

    def _log_costs(self) -> None:
        """With -v: what the programs cost, if the kernel measured it."""
        for program in self._obj.attached():
            stats = program.stats()
            if stats.run_count:
                each = stats.run_time_ns / stats.run_count
                log.info("%s: %d runs, %.0f ns each", program.name, stats.run_count, each)
