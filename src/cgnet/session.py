# SPDX-License-Identifier: BSD-2-Clause
"""One run of a command: load, attach, pass records on until the end, say what was lost."""

from __future__ import annotations

import gc
import logging
import math
import os
import sys
import time
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from cgnet import pipeline
from cgnet._layouts import OwnerSource, Undecided
from cgnet.cgroup_filter import cgroup_key
from cgnet.cgroups import CgroupNames
from cgnet.counts import Counts, constants
from cgnet.errors import ExitStatus, NotYetKnownError
from cgnet.events import (
    HEAD_KIND,
    OWNER_PART,
    OWNER_SOURCE,
    OWNER_UNDECIDED,
    SCHEMA,
    Clock,
    CountSchema,
    Schema,
    cgroup_change,
)
from cgnet.filters import Filters
from cgnet.launch import Extra, Launch
from cgnet.losses import Losses
from cgnet.output import Writer
from cgnet.render import Renderer, make_renderer
from cgnet.runtimes import Runtimes

if TYPE_CHECKING:
    from cgnet.command import Command, Options
    from cgnet.ring import Ring

log = logging.getLogger(__name__)

STDOUT = 1
GC_THRESHOLD = 100_000
LOST_EVERY_S = 1.0
# A removed cgroup's sockets live on, and its tasks may connect while they die.
FORGET_CGROUP_AFTER_S = 60.0


def tell(message: str) -> None:
    """Say a line to the person at the terminal."""
    print(f"cgnet: {message}", file=sys.stderr, flush=True)  # noqa: T201


def _column(field: str) -> str:
    """Return the column that shows a field of counts to people."""
    return "owner" if field in ("container", "pod", "pod_namespace", "cgroup") else field


class Session:
    """A run, from the options to the exit status."""

    def __init__(self, command: Command, options: Options, extras: list[Extra]) -> None:
        """Check the options. Raises UsageError; nothing is loaded yet."""
        self.command = command
        self.options = options
        self.extras = extras
        self.filters = Filters(options.selection)
        self.names = CgroupNames(self.filters.hierarchies)
        self.runtimes = Runtimes()
        self.clock = Clock()
        self.counts: Counts | None = None
        if options.counts is not None:
            self.counts = Counts(options.counts, self.filters, self.names, self.runtimes)
        self.renderer = self._make_renderer()
        self.rate = pipeline.RateLimit(options.max_rate)
        self.out = Writer(STDOUT)
        self.records = 0
        self.unknown_owners = 0
        self.losses = Losses()
        self._leaving: deque[tuple[float, int, int]] = deque()
        self._waiting: list[bytes] = []  # records of new cgroups, for names

    def _make_renderer(self) -> Renderer:
        options, command = self.options, self.command
        schema: Schema | CountSchema
        if self.counts:
            schema = CountSchema(command.name, self.clock, self.counts.fields)
            shown = ["time", *(_column(field) for field in self.counts.fields)]
            columns = dict.fromkeys(command.columns, tuple(dict.fromkeys(shown)))
            fields = options.fields or (list(schema.fields) if options.output == "json" else None)
        else:
            groups = command.groups(self.names, self.runtimes)
            schema = Schema(command.name, self.clock, groups, command.layouts[0].size)
            columns, fields = command.columns, options.fields
        return make_renderer(
            options.output,
            schema,
            fields,
            columns,
            terminal=os.isatty(STDOUT),
            header=not options.no_header,
        )

    # -- records

    def _separate(self, batch: list[bytes]) -> list[bytes]:
        """Take out what is about cgroups: names must be known before they are shown."""
        wanted = self.command.record
        records = [raw for raw in batch if raw[HEAD_KIND] == wanted]
        if len(records) != len(batch):
            for raw in batch:
                if raw[HEAD_KIND] != wanted:
                    self._on_cgroup(raw)
        return records

    def _on_cgroup(self, raw: bytes) -> None:
        change = cgroup_change(raw)
        if change.path:
            self.names.remember(change.hierarchy, change.cgroup_id, change.path)
        if change.born:
            self.runtimes.of(change.path)  # its name is looked for before it does anything
            self.filters.cgroups.born(
                self._obj.map("selected_cgroups"),
                change.hierarchy,
                change.cgroup_id,
                change.path,
                tell,
            )
        elif change.marks or self.filters.undecided:  # it may have been marked meanwhile
            forget = time.monotonic() + FORGET_CGROUP_AFTER_S
            self._leaving.append((forget, change.hierarchy, change.cgroup_id))
            given = self.filters.cgroups.is_given(change.hierarchy, change.path)
            if given:
                tell(f"--cgroup {given}: it was removed; the run goes on, also if it comes back")

    def _forget_cgroups(self) -> None:
        now = time.monotonic()
        while self._leaving and self._leaving[0][0] <= now:
            _, hierarchy, cgroup = self._leaving.popleft()
            self._obj.map("selected_cgroups").discard(cgroup_key(hierarchy, cgroup))
            self.filters.named.forget(self._obj.map("named_cgroups"), cgroup)

    def _wanted(self, records: list[bytes]) -> list[bytes]:
        """Leave out owners in new cgroups that aren't wanted; those that may be yet have to wait."""
        if not self.filters.undecided:
            return records
        records, self._waiting = self._waiting + records, []
        return [raw for raw in records if not raw[OWNER_UNDECIDED] or self._is_wanted(raw)]

    def _is_wanted(self, raw: bytes) -> bool:
        try:
            decided = self.filters.decide(raw[OWNER_PART], self.names, self.runtimes)
        except NotYetKnownError:
            self._waiting.append(raw)
            return False
        if raw[OWNER_UNDECIDED] & Undecided.UNDECIDED_NAME:
            self.filters.named.settle(
                self._obj.map("named_cgroups"), raw[OWNER_PART], self.names, self.runtimes
            )
        return decided is not None

    def _wait_for_names(self) -> None:
        """At the end: it takes no longer than names are expected."""
        while self._waiting or (self.counts and self.counts.is_waiting):
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

    def _emit(self, batch: list[bytes]) -> bool:
        """Write a batch; tell whether the limit is reached."""
        records = self._wanted(self._separate(batch))
        limit = self.options.limit
        if limit is not None:
            records = records[: limit - self.records]
        if records:
            taken = self.rate.take(len(records))
            self.losses.add("rate", len(records) - taken)
            records = records[:taken]
            self.records += len(records)
            unknown = OwnerSource.OWNER_UNKNOWN
            self.unknown_owners += sum(raw[OWNER_SOURCE] == unknown for raw in records)
            self.out.write(self.renderer.rows(records))
        return limit is not None and self.records >= limit and not self.counts

    def _run_record(self, kind: str, **fields: Any) -> dict[str, Any]:
        ts_ns = time.monotonic_ns()
        head = {"schema": SCHEMA, "type": kind, "time": self.clock.text(ts_ns), "ts_ns": ts_ns}
        return {**head, **fields}

    def _check_lost(self) -> None:
        """Say what was lost since the last look, when it happens."""
        for loss in self.losses.look(self._obj):
            tell(str(loss))
            row = self._run_record("lost", count=loss.number, where=loss.where)
            self.out.write(self.renderer.notice(row))

    def _summary(self) -> None:
        lost = self.losses.total
        row = self._run_record(
            "summary", records=self.records, lost=lost, unknown_owners=self.unknown_owners
        )
        text = self.renderer.notice(row)
        self.out.write(text)
        if not text:
            tell(f"{self.records} records, {lost} lost, {self.unknown_owners} of unknown owners")

    # -- the run

    def run(self) -> ExitStatus:
        """Trace until the end. Raises CgnetError."""
        stop = pipeline.Stop(self.options.duration)
        with ExitStack() as cleanup:
            cleanup.callback(self.names.close)
            cleanup.callback(self.runtimes.close)
            signals = cleanup.enter_context(stop.on_signals())
            options, command = self.options, self.command
            counting = constants(options.counts) if options.counts is not None else None
            launch = Launch(command.object, command.layouts, self.filters, options.buffer, counting)
            obj, extra = launch.start(self.extras, options.btf, options.hook)
            self._obj = cleanup.enter_context(obj)
            ring = obj.ring("ring")
            self.runtimes.learn(self.names.paths())
            naming = self.filters.hierarchies[0]
            self.filters.named.fill(obj.map("named_cgroups"), naming, self.runtimes)
            for line in extra.remarks:
                tell(line)
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

    def _trace(self, ring: Ring, stop: pipeline.Stop, signals: int) -> None:
        next_look = 0.0
        interval = self.options.interval
        next_print = time.monotonic() + (interval or math.inf)
        ended = False
        for batch in pipeline.batches(ring, stop, signals, STDOUT):
            ended = self._emit(batch)
            if ended:
                break
            if time.monotonic() >= next_print:
                next_print += interval or math.inf
                self._print_counts()
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOST_EVERY_S
                self.clock.adjust()
                self._forget_cgroups()
                self._check_lost()
        self._log_costs()
        self._obj.detach()
        if not ended:
            for batch in pipeline.drain(ring):
                if self._emit(batch):
                    break
        self._print_counts()
        self._wait_for_names()
        self._check_lost()
        self._summary()

    def _log_costs(self) -> None:
        """With -v: what the programs cost, if the kernel measured it."""
        for program in self._obj.attached():
            stats = program.stats()
            if stats.run_count:
                each = stats.run_time_ns / stats.run_count
                log.info("%s: %d runs, %.0f ns each", program.name, stats.run_count, each)
