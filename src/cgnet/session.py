# SPDX-License-Identifier: BSD-2-Clause
"""One run of a command: load, attach, pass records on until the end, say what was lost."""

from __future__ import annotations

import gc
import logging
import math
import os
import stat
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from cgnet import absent, asking, features, output, pipeline
from cgnet._layouts import HEAD, OwnerSource
from cgnet.cgroups import CgroupNames
from cgnet.counts import Counts
from cgnet.errors import ExitStatus, StoppedError
from cgnet.events import HEAD_PART, SCHEMA, Clock, CountSchema, Schema, source_of
from cgnet.filters import Filters
from cgnet.handovers import Handovers
from cgnet.launch import Extras, Launch
from cgnet.losses import Losses
from cgnet.netns_owners import ADDRESS_OWNERS, NETNS_OWNERS, NetnsOwners
from cgnet.newcomers import Newcomers
from cgnet.output import Patience, Writer, cannot_write, tell
from cgnet.render import (
    Renderer,
    columns_of_counts,
    make_blocks,
    make_drawings,
    make_renderer,
)
from cgnet.runtimes import Runtimes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.command import Command, Options
    from cgnet.ring import Reader

log = logging.getLogger(__name__)

STDOUT = 1
GC_THRESHOLD = 100_000
LOST_EVERY_S = 1.0
SLOW_S = 1.0
WHOLE_INTERVAL = 0.9  # of an interval's time: so much of it is drawn in place of the last one
ROWS_AT_ONCE = 256  # the text of more doesn't stay in the cache until it is written: half as fast


@contextmanager
def said_if_slow(message: str) -> Iterator[None]:
    """Say something to a person who has waited for SLOW_S."""
    timer = threading.Timer(SLOW_S, tell, (message,))
    timer.daemon = True
    if sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


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
        self.runtimes = Runtimes(hierarchy=self.filters.hierarchies[0])
        self.clock = Clock()
        self.counts: Counts | None = None
        if options.counting is not None:
            self.counts = Counts(options.counting, self.filters, self.names, self.runtimes)
        self.newcomers = Newcomers(self.filters, self.names, self.runtimes, tell)
        self.renderer = self._make_renderer()
        self.rate = pipeline.RateLimit(options.max_rate)
        self.stop = pipeline.Stop(options.duration)
        self.out = Writer(STDOUT, Patience(self.stop.reached, lambda: self.stop.insisted))
        self.records = 0
        self.unknown_owners = 0
        self.losses = Losses()
        self._netns_owners: NetnsOwners | None = None
        self._runs: dict[str, str] = {}  # hook, transport and ledger
        self._unseen: dict[str, str] | None = None  # stages that this kernel doesn't tell of
        self._baseline_ns = 0  # what was alive is told since then
        self._early: list[bytes] = []  # records that came before the header was written
        self._interval_began = 0.0  # by the monotonic clock, in seconds
        self._drawn = False  # counts, on a terminal
        self._told_absent = False  # which names nobody has

    def _make_renderer(self) -> Renderer:
        options, command = self.options, self.command
        schema: Schema | CountSchema
        if self.counts:
            schema = CountSchema(command.name, self.clock, self.counts.fields)
            if self.counts.draws and options.output in ("table", "wide"):
                return make_drawings(
                    schema, options.fields, milliseconds=self._ms, terminal=os.isatty(STDOUT),
                    whole=options.output == "wide",
                )  # fmt: skip
            columns = columns_of_counts(self.counts.shown)
            fields = options.fields or (list(schema.fields) if options.output == "json" else None)
        else:
            groups = command.groups(self.names, self.runtimes)
            schema = Schema(
                command.name, self.clock, groups, command.layouts[0].size, command.least
            )
            columns = {**command.columns, "first": command.first, "then": command.then}
            fields = options.fields
            if command.drawn and options.output in ("table", "wide"):
                fitted = options.output == "table" and os.isatty(STDOUT)
                return make_blocks(schema, fields, fitted=fitted)
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

    def _write(self, text: str) -> bool:
        """Write text; tell whether there is some and all of it is out."""
        data = output.encode(text)
        return self.out.write(data) == len(data) > 0

    def _write_rows(self, rows: list[Any], *, screen: bool = False) -> None:
        """Write rows, or a ``screen`` of them, and count them: as lost if the output takes no more."""
        shown = len(rows)
        render = self.renderer.screen if screen else self.renderer.rows
        if self.out.problem:
            shown = 0
        else:
            above = "" if screen else self.renderer.above(rows)
            data = output.encode(above + render(rows))
            taken = self.out.write(data)
            if taken < len(data):
                shown = output.whole(rows, lambda some: above + render(some), taken)
        self.records += shown
        self.losses.add("output", len(rows) - shown)

    def _wait_for_names(self) -> None:
        """At the end: it takes no longer than names are expected. One more signal cuts it short."""
        while self.newcomers.is_waiting or (self.counts and self.counts.is_waiting):
            if self.stop.insisted:
                return
            time.sleep(pipeline.TICK_MS / 1000)
            self._emit([])
            self._print_counts()

    def _print_counts(self) -> None:
        """Print what was counted since the last time."""
        if not self.counts:
            return
        head = self._run_record(self.command.name)
        rows = [head | row for row in self.counts.collect(self._obj)][: self.options.limit]
        self.unknown_owners = self.counts.of_unknown_owners
        self._write_counts(rows)
        if self.command.companion:
            self.command.companion.see(self._schema, rows)

    def _write_counts(self, rows: list[Any]) -> None:
        """Write rows of counts; a terminal keeps a whole interval rather than show part of one."""
        interval, began = self.options.interval, self._interval_began
        self._interval_began = time.monotonic()
        if not interval or not self.renderer.redraws:
            self._write_rows(rows)
            return
        lasted = self._interval_began - began
        if self._drawn and lasted < WHOLE_INTERVAL * interval:
            if rows:
                tell(f"the last {lasted:.1f} s aren't shown: they are no whole interval")
            return
        self._drawn = True
        self._write_rows(rows, screen=True)

    def _tell_more(self) -> None:
        """Say what the command has to say beside its rows."""
        companion = self.command.companion
        for record in companion.records() if companion else ():
            row = self._run_record(**record)
            if companion and not self._write(self.renderer.notice(row)):
                tell(companion.text(row))

    def _emit(self, batch: list[bytes]) -> bool:
        """Write a batch; tell whether the limit is reached."""
        records = self.newcomers.pass_on(self._obj, batch)
        self.losses.add("names", self.newcomers.take_too_many())
        if self._baseline_ns:
            records = [raw for raw in records if not self._is_baseline(raw)]
        limit = self.options.limit
        if limit is not None:
            records = records[: limit - self.records]
        if records:
            taken = self.rate.take(len(records))
            self.losses.add("rate", len(records) - taken)
            records = records[:taken]
            self.unknown_owners += bytes(map(source_of, records)).count(OwnerSource.OWNER_UNKNOWN)
            if self.command.companion:  # first: what it reads of the host may soon be gone
                self.command.companion.see(self._schema, records)
            for begin in range(0, len(records), ROWS_AT_ONCE):
                self._write_rows(records[begin : begin + ROWS_AT_ONCE])
        return limit is not None and self.records >= limit and not self.counts

    def _tell_netns_owners(self) -> None:
        if self._netns_owners:
            self._netns_owners.follow()

    def _tell_living(self) -> list[bytes]:
        """Have the kernel side tell what goes on, where it can; return what was fetched meanwhile."""
        obj, living = self._obj, self.command.living
        told = [obj.iterate_if_loaded(program, name) for name, program in living.items()]
        if any(each is not None for each in told) or not (living and asking.can_ask(obj)):
            return []
        ring = obj.ring("ring")
        return [record for _ in asking.tell_open(obj) for record in ring.consume()]

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
            self._write(self.renderer.notice(row))

    def _summary(self) -> None:
        lost, unknown, companion = self.losses.total, self.unknown_owners, self.command.companion
        more = companion.summary(self._obj) if companion else {}
        row = self._run_record(
            "summary", records=self.records, lost=lost, unknown_owners=unknown, **more, **self._runs
        )
        if self._unseen is not None:
            row["not_seen"] = list(self._unseen)
        if not self._write(self.renderer.notice(row)):
            also = "".join(f", {number} {name}" for name, number in more.items())
            if features.is_second_best(self._runs) or log.isEnabledFor(logging.INFO):
                also += f"; by {', '.join(self._runs.values())}"
            tell(f"{self.records} records, {lost} lost, {unknown} of unknown owners{also}")

    # -- the run

    def run(self) -> ExitStatus:
        """Trace until the end. Raises CgnetError."""
        with ExitStack() as cleanup:
            cleanup.callback(self.out.close)
            cleanup.callback(self.names.close)
            cleanup.callback(self.runtimes.close)
            signals = cleanup.enter_context(self.stop.on_signals())
            try:
                remarks = self._load(cleanup, signals)
            except StoppedError:
                if self.stop.requested:
                    return ExitStatus.DONE
                raise
            if self.options.interval:
                self._early = self._tell_living()
                self._baseline_ns = time.monotonic_ns()
            self._tell_start(remarks)
            # Records make no reference cycles: to look for some at each 700 objects costs 15 %.
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD)
            self.stop.start()
            try:
                self._interval_began = time.monotonic()
                # Who reads a pipe may want no more than the header.
                later = stat.S_ISREG(os.fstat(STDOUT).st_mode)
                self._write(self.renderer.begin() if later else self.renderer.header())
                self._trace(self._obj.ring("ring"), signals)
            except BrokenPipeError:
                return ExitStatus.DONE
        if self.out.problem not in ("", output.STALLED):
            raise cannot_write(self.out.problem)
        lost = self.losses.total
        return ExitStatus.EVENTS_LOST if lost and self.options.strict else ExitStatus.DONE

    def _load(self, cleanup: ExitStack, signals: int) -> list[str]:
        """Load and attach the programs; return the remarks on what runs. Raises StoppedError."""
        options, command = self.options, self.command
        launch = Launch(
            command.object, command.layouts, self.filters, options.buffer,
            counting=options.counting, measures=options.measures, contents=options.contents,
            stopped=lambda: self.stop.requested,
        )  # fmt: skip
        with pipeline.interruptible(signals), said_if_slow("loading programs …"):
            obj, extra = launch.start(self.extras, options.btf, options.hook, options.transport)
        self._obj = cleanup.enter_context(obj)
        if launch.follows_listeners(obj):
            cleanup.callback(Handovers(obj, self.filters).close)
        self._name_owners()
        if command.companion:
            command.companion.begin(obj)
        self._runs, self._unseen = launch.runs, launch.unseen
        return launch.remarks(extra)

    def _name_owners(self) -> None:
        """Tell the programs the names of the cgroups that are there, and whose namespaces they are."""
        obj, naming = self._obj, self.filters.hierarchies[0]
        paths = list(self.names.paths())
        self.runtimes.learn(paths)
        self.filters.named.fill(obj.map("named_cgroups"), naming, self.runtimes)
        if not obj.has_map(NETNS_OWNERS):
            return
        addresses = obj.map(ADDRESS_OWNERS) if obj.has_map(ADDRESS_OWNERS) else None
        self._netns_owners = NetnsOwners(self.runtimes, naming, obj.map(NETNS_OWNERS), addresses)
        for path in paths:
            self._netns_owners.made(path)
        self._netns_owners.follow(math.inf)
        self.newcomers.tell_changes(naming.id, self._netns_owners)

    def _tell_start(self, remarks: list[str]) -> None:
        """Say that everything is attached, and before what there is to know of this run."""
        note = self.filters.hierarchies[0].note
        for line in [note, *remarks] if note else remarks:
            tell(line)
        for line in absent.of_devices(self.options.devices) if self.options.devices else ():
            tell(line)
        self._tell_absent()
        if left_out := self.renderer.left_out:
            names = ", ".join(left_out)
            tell(f"this terminal is too narrow for {names}; -o wide cuts nothing")
        tell(f"tracing {self.command.name}; Ctrl-C ends it")

    def _tell_absent(self) -> None:
        """Say which names nobody has, once all is known that the runtimes will tell soon."""
        if not self.filters.named.use or self._told_absent:
            return
        known = [self.runtimes.of(path) for path in self.names.paths()]
        if not any(each.expected for each in known):
            self._told_absent = True
            for line in absent.of_names(self.filters.named, known):
                tell(line)

    def _trace(self, ring: Reader, signals: int) -> None:
        next_look = 0.0
        options = self.options
        interval = options.interval
        next_print = time.monotonic() + (interval or math.inf)
        ended = self._emit(self._early)
        for batch in pipeline.batches(ring, self.stop, signals, STDOUT):
            ended = self._emit(batch)
            if ended or self.out.problem:
                break
            if time.monotonic() >= next_print:
                next_print += interval or math.inf
                self._print_counts()
                self._tell_more()
                ended = self._emit(self._tell_living())
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOST_EVERY_S
                self.clock.adjust()
                self.newcomers.forget(self._obj)
                self._tell_netns_owners()
                self._tell_absent()
                self._check_lost()
                if self.command.leftovers:
                    ended = self._emit(self.command.leftovers(self._obj, options, ended=False))
        self._log_costs()
        self._obj.detach()
        if not ended:
            self._emit_the_rest(ring)
        self._print_counts()
        self._wait_for_names()
        self._write(self.renderer.finish())
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
