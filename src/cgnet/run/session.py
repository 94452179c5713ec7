# SPDX-License-Identifier: BSD-2-Clause
"""One run of a command: start, pass records on until the end, report losses."""

from __future__ import annotations

import gc
import math
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cgnet.errors import ExitStatus, StoppedError
from cgnet.filters.selection import Filters
from cgnet.kernel.program_stats import log_costs
from cgnet.records.schema import Clock
from cgnet.run import reader
from cgnet.run.output import Patience, said_if_slow, tell
from cgnet.run.owner_names import OwnerNames
from cgnet.run.printer import Printer
from cgnet.run.signal import Signal

if TYPE_CHECKING:
    from cgnet.kernel.ring_buffer import Reader
    from cgnet.run.command import Command, Options

GC_THRESHOLD = 100_000
LOST_EVERY_S = 1.0


class Session:
    """A run, from the options to the exit status."""

    def __init__(self, command: Command, options: Options) -> None:
        """Check the options. Raises UsageError. Loads nothing yet."""
        self.options = options
        self.filters = Filters(options.selection)
        self.names = OwnerNames(self.filters)
        self.clock = Clock()
        self.signal = Signal(command, options, self.filters, self.names, self.clock)
        self.stop = reader.Stop(options.duration)
        patience = Patience(self.stop.reached, lambda: self.stop.insisted)
        self.printer = Printer(self.signal, options, patience)
        self.rate = reader.RateLimit(options.max_rate)

    def run(self) -> ExitStatus:
        """Trace until the end. Raises CgnetError."""
        with ExitStack() as cleanup:
            for each in (self.printer, self.names):
                cleanup.callback(each.close)
            wakeup = cleanup.enter_context(self.stop.on_signals())
            try:
                early = self._start(cleanup, wakeup)
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
                self._trace(early, wakeup)
            except BrokenPipeError:
                return ExitStatus.DONE
        self.printer.raise_problem()
        strict = self.signal.losses.total and self.options.strict
        return ExitStatus.EVENTS_LOST if strict else ExitStatus.DONE

    def _start(self, cleanup: ExitStack, wakeup: int) -> list[bytes]:
        """Attach everything, then say so; return the records until then. Raises StoppedError."""
        signal, command = self.signal, self.signal.command
        with reader.interruptible(wakeup), said_if_slow("loading programs …"):
            remarks = signal.load(cleanup, lambda: self.stop.requested)
        self.names.publish(signal.obj)
        command.on_started(signal.obj)
        early: list[bytes] = []
        if self.options.interval:
            early = [raw for batch in command.on_interval(signal.obj) for raw in batch]
        note = self.filters.hierarchies[0].note
        for line in [note, *remarks] if note else remarks:
            tell(line)
        self.names.say_unmatched()
        self.names.say_absent()
        self.printer.say_left_out()
        tell(f"tracing {command.name}; Ctrl-C ends it")
        return early

    def _trace(self, early: list[bytes], wakeup: int) -> None:
        signal, ring = self.signal, self.signal.obj.ring("ring")
        next_look, interval = 0.0, self.options.interval or math.inf
        next_print = time.monotonic() + interval
        ended = self._emit(early)
        for batch in reader.batches(ring, self.stop, wakeup, self.printer.fd):
            ended = self._emit(batch)
            if ended or self.printer.problem:
                break
            if time.monotonic() >= next_print:
                next_print += interval
                self.printer.counts()
                self.printer.notices()
                open_now = signal.command.on_interval(signal.obj)
                ended = any(self._emit(batch) for batch in open_now)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOST_EVERY_S
                ended = self._look_around()
        log_costs(signal.obj)
        signal.obj.detach()
        if not ended:
            self._emit_the_rest(ring)
        self.printer.counts()
        self._wait_for_names()
        self.printer.finish()
        self.printer.notices()
        self.printer.lost()
        self.printer.summary()

    def _look_around(self) -> bool:
        """Process changes other than records; return whether the limit is reached."""
        self.clock.adjust()
        self.names.follow()
        self.printer.lost()
        expired = self.signal.expired(ended=False)
        return bool(expired) and self._emit(expired)

    def _emit_the_rest(self, ring: Reader) -> None:
        for batch in reader.drain(ring):
            if self._emit(batch):
                return
        self._emit(self.signal.expired(ended=True))

    def _emit(self, batch: list[bytes]) -> bool:
        """Print a batch; return whether the limit is reached."""
        limit, signal = self.options.limit, self.signal
        records = signal.records(batch)
        if limit is not None:
            records = records[: limit - self.printer.records]
        if records:
            taken = self.rate.take(len(records))
            signal.losses.add("rate", len(records) - taken)
            signal.printing(records[:taken])
            self.printer.rows(records[:taken])
        return limit is not None and self.printer.records >= limit and not signal.counts

    def _wait_for_names(self) -> None:
        """Wait for names at the end, no longer than they are expected, or until another signal."""
        while self.signal.is_waiting and not self.stop.insisted:
            time.sleep(reader.TICK_MS / 1000)
            self._emit([])
            self.printer.counts()
