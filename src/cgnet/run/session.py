# SPDX-License-Identifier: BSD-2-Clause
"""One run of a command: load, attach, pass records on until the end, report losses."""

from __future__ import annotations

import gc
import logging
import math
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from cgnet.counting.counts import Counts
from cgnet.errors import ExitStatus, StoppedError
from cgnet.filters.selection import Filters
from cgnet.kernel import variants
from cgnet.kernel.program_stats import log_costs
from cgnet.owners.listener_handovers import Handovers
from cgnet.records._layouts import Head, OwnerSource
from cgnet.records.schema import Clock, CountSchema, Schema, source_of
from cgnet.run import reader
from cgnet.run.launch import Launch
from cgnet.run.losses import Losses
from cgnet.run.output import Patience, tell
from cgnet.run.owner_names import OwnerNames
from cgnet.run.printer import Printer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.kernel.ring_buffer import Reader
    from cgnet.run.command import Command, Options

log = logging.getLogger(__name__)

GC_THRESHOLD = 100_000
LOST_EVERY_S = 1.0
SLOW_S = 1.0


@contextmanager
def said_if_slow(message: str) -> Iterator[None]:
    """Print a message on a terminal if the body takes longer than SLOW_S."""
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

    def __init__(self, command: Command, options: Options) -> None:
        """Check the options. Raises UsageError. Loads nothing yet."""
        self.command, self.options = command, options
        self.filters = Filters(options.selection)
        self.names = OwnerNames(self.filters)
        self.counts: Counts | None = None
        if options.counting is not None:
            names = self.names
            self.counts = Counts(options.counting, self.filters, names.cgroups, names.runtimes)
        self.losses = Losses()
        self.clock = Clock()
        self.stop = reader.Stop(options.duration)
        patience = Patience(self.stop.reached, lambda: self.stop.insisted)
        self.printer = Printer(
            command, options, self._make_schema(),
            counts=self.counts, losses=self.losses, patience=patience,
        )  # fmt: skip
        self.rate = reader.RateLimit(options.max_rate)
        self.unknown_owners = 0
        self._runs: dict[str, Any] = {}  # hook, transport, ledger, and stages that aren't seen
        self._early: list[bytes] = []  # records that came before the header was written
        self._baseline_ns = 0  # records of the first look aren't printed

    def _make_schema(self) -> Schema | CountSchema:
        command, names = self.command, self.names
        if self.counts:
            return CountSchema(command.name, self.clock, self.counts.fields)
        fields = command.fields(names.cgroups, names.runtimes)
        size = command.layouts[0].size
        return Schema(command.name, self.clock, fields, size, command.min_record_size)

    def run(self) -> ExitStatus:
        """Trace until the end. Raises CgnetError."""
        with ExitStack() as cleanup:
            for each in (self.printer, self.names):
                cleanup.callback(each.close)
            signals = cleanup.enter_context(self.stop.on_signals())
            try:
                self._load(cleanup, signals)
            except StoppedError:
                if self.stop.requested:
                    return ExitStatus.DONE
                raise
            # Records make no reference cycles: a collection every 700 objects costs 15 %.
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD)
            self.stop.start()
            try:
                self.printer.begin()
                self._trace(self._obj.ring("ring"), signals)
            except BrokenPipeError:
                return ExitStatus.DONE
        self.printer.raise_problem()
        strict = self.losses.total and self.options.strict
        return ExitStatus.EVENTS_LOST if strict else ExitStatus.DONE

    # -- the start

    def _load(self, cleanup: ExitStack, signals: int) -> None:
        """Load and attach the programs, and report the variant in use. Raises StoppedError."""
        options, command = self.options, self.command
        launch = Launch(
            command.object, command.layouts, self.filters, options.buffer,
            counting=options.counting, config=command.config, maps=command.maps(),
            stopped=lambda: self.stop.requested,
        )  # fmt: skip
        with reader.interruptible(signals), said_if_slow("loading programs …"):
            obj, chosen = launch.start(
                command.program_sets, options.btf, options.hook, options.transport
            )
        self._obj = cleanup.enter_context(obj)
        if launch.follows_listeners(obj):
            cleanup.callback(Handovers(obj, self.filters).close)
        self.names.publish(obj)
        command.on_started(obj)
        not_seen = {} if launch.unseen is None else {"not_seen": list(launch.unseen)}
        self._runs = launch.runs | not_seen
        if options.interval:
            self._early = command.on_interval(obj)
            self._baseline_ns = time.monotonic_ns()
        self._tell_start(launch.remarks(chosen))

    def _tell_start(self, remarks: list[str]) -> None:
        """Print remarks on this run, then that everything is attached."""
        note = self.filters.hierarchies[0].note
        for line in [note, *remarks] if note else remarks:
            tell(line)
        self.names.say_unmatched()
        self.names.say_absent()
        if left_out := self.printer.left_out:
            names = ", ".join(left_out)
            tell(f"this terminal is too narrow for {names}; -o wide cuts nothing")
        tell(f"tracing {self.command.name}; Ctrl-C ends it")

    # -- the loop

    def _trace(self, ring: Reader, signals: int) -> None:
        next_look, interval = 0.0, self.options.interval or math.inf
        next_print = time.monotonic() + interval
        ended = self._emit(self._early)
        for batch in reader.batches(ring, self.stop, signals, self.printer.fd):
            ended = self._emit(batch)
            if ended or self.printer.problem:
                break
            if time.monotonic() >= next_print:
                next_print += interval
                self._print_counts()
                self._print_notices()
                ended = self._emit(self.command.on_interval(self._obj))
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOST_EVERY_S
                ended = self._look_around()
        log_costs(self._obj)
        self._obj.detach()
        if not ended:
            self._emit_the_rest(ring)
        self._print_counts()
        self._wait_for_names()
        self.printer.finish()
        self._print_notices()
        self._check_lost()
        self._print_summary()

    def _look_around(self) -> bool:
        """Process changes other than records; return whether the limit is reached."""
        self.clock.adjust()
        self.names.follow(self._obj)
        self._check_lost()
        expired = self.command.expired(self._obj, self.options, ended=False)
        return bool(expired) and self._emit(expired)

    def _emit_the_rest(self, ring: Reader) -> None:
        for batch in reader.drain(ring):
            if self._emit(batch):
                return
        self._emit(self.command.expired(self._obj, self.options, ended=True))

    def _emit(self, batch: list[bytes]) -> bool:
        """Print a batch; return whether the limit is reached."""
        records = self.names.watch.pass_on(self._obj, batch)
        self.losses.add("names", self.names.watch.take_too_many())
        if self._baseline_ns:
            records = [raw for raw in records if not self._is_baseline(raw)]
        limit = self.options.limit
        if limit is not None:
            records = records[: limit - self.printer.records]
        if records:
            taken = self.rate.take(len(records))
            self.losses.add("rate", len(records) - taken)
            records = records[:taken]
            self.unknown_owners += bytes(map(source_of, records)).count(OwnerSource.OWNER_UNKNOWN)
            # First: state of the host that a command reads may soon be gone.
            self.command.on_rows(self.printer.schema, records)
            self.printer.rows(records)
        return limit is not None and self.printer.records >= limit and not self.counts

    def _is_baseline(self, raw: bytes) -> bool:
        """Return whether a record is of the first look, the baseline of deltas."""
        return Head.unpack(raw).ts_ns <= self._baseline_ns and self.command.was_open(raw)

    def _wait_for_names(self) -> None:
        """Wait for names at the end, no longer than they are expected, or until another signal."""
        while self.names.watch.is_waiting or (self.counts and self.counts.is_waiting):
            if self.stop.insisted:
                return
            time.sleep(reader.TICK_MS / 1000)
            self._emit([])
            self._print_counts()

    # -- beside the records

    def _print_counts(self) -> None:
        """Print the counts since the last call."""
        if not self.counts:
            return
        head = self.printer.run_record(self.command.name)
        rows = [head | row for row in self.counts.collect(self._obj)][: self.options.limit]
        self.unknown_owners = self.counts.of_unknown_owners
        self.printer.counts(rows)
        self.command.on_rows(self.printer.schema, rows)

    def _print_notices(self) -> None:
        """Print the command's additional records."""
        for record in self.command.notices():
            row = self.printer.run_record(record.pop("type"), **record)
            if not self.printer.notice(row):
                tell(self.command.notice_text(row))

    def _check_lost(self) -> None:
        """Report losses since the last check."""
        for loss in self.losses.look(self._obj):
            tell(str(loss))
            self.printer.notice(
                self.printer.run_record("lost", count=loss.number, where=loss.where)
            )

    def _print_summary(self) -> None:
        records, lost, unknown = self.printer.records, self.losses.total, self.unknown_owners
        more = self.command.summary(self._obj)
        counted = {"records": records, "lost": lost, "unknown_owners": unknown, **more}
        if not self.printer.notice(self.printer.run_record("summary", **counted, **self._runs)):
            also = "".join(f", {number} {name}" for name, number in more.items())
            if variants.is_second_best(self._runs) or log.isEnabledFor(logging.INFO):
                also += f"; by {', '.join(self._runs[name] for name in ('hook', 'transport', 'ledger'))}"
            tell(f"{records} records, {lost} lost, {unknown} of unknown owners{also}")
