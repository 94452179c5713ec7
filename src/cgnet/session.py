# SPDX-License-Identifier: BSD-2-Clause
"""One run of a command: load, attach, pass records on until the end, say what was lost."""

from __future__ import annotations

import gc
import os
import select
import sys
import time
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet import pipeline
from cgnet._layouts import OwnerSource, RecordKind
from cgnet.cgroups import CgroupNames
from cgnet.errors import CgnetError, ExitStatus
from cgnet.events import HEAD_KIND, OWNER_SOURCE, SCHEMA, Clock, Schema, cgroup_change
from cgnet.filters import Filters, cgroup_key
from cgnet.launch import Extra, Launch
from cgnet.losses import Losses
from cgnet.render import Renderer, make_renderer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cgnet._layouts import Layout
    from cgnet.events import Group
    from cgnet.loader import Ring

STDOUT = 1
GC_THRESHOLD = 100_000
LOST_EVERY_S = 1.0
# A removed cgroup's sockets live on, and its tasks may connect while they die.
FORGET_CGROUP_AFTER_S = 60.0


class Command(NamedTuple):
    """What a subcommand is made of."""

    name: str
    object: str  # of _bpf/, without its suffix
    layouts: tuple[Layout, ...]  # of its records; the first is the whole record
    record: RecordKind
    columns: dict[str, tuple[str, ...]]
    groups: Callable[[CgroupNames], list[Group]]


class Options(NamedTuple):
    """The options that every command has; options.py describes them."""

    cgroup: tuple[str, ...]
    pid: tuple[int, ...]
    hierarchy: str | None
    output: str
    fields: list[str] | None
    no_header: bool
    duration: float | None
    limit: int | None
    buffer: int
    strict: bool
    btf: Path | None
    hook: str | None


def tell(message: str) -> None:
    """Say a line to the person at the terminal."""
    print(f"cgnet: {message}", file=sys.stderr, flush=True)  # noqa: T201


class _Writer:
    """Standard output, unbuffered: what is written is out."""

    def write(self, text: str) -> None:
        """Write all of it. Raises BrokenPipeError, CgnetError."""
        data = memoryview(text.encode(errors="backslashreplace"))
        while data:
            try:
                data = data[os.write(STDOUT, data) :]
            except BrokenPipeError:
                raise
            except BlockingIOError:  # somebody made it non-blocking
                select.select([], [STDOUT], [])
            except OSError as error:
                raise CgnetError(f"can't write the output: {error.strerror}") from error


class Session:
    """A run, from the options to the exit status."""

    def __init__(self, command: Command, options: Options, extras: list[Extra]) -> None:
        """Check the options. Raises UsageError; nothing is loaded yet."""
        self.command = command
        self.options = options
        self.extras = extras
        self.filters = Filters(options.cgroup, options.pid, options.hierarchy)
        self.names = CgroupNames(self.filters.hierarchies)
        self.clock = Clock()
        schema = Schema(
            command.name, self.clock, command.groups(self.names), command.layouts[0].size
        )
        self.renderer: Renderer = make_renderer(
            options.output,
            schema,
            options.fields,
            command.columns,
            terminal=os.isatty(STDOUT),
            header=not options.no_header,
        )
        self.out = _Writer()
        self.records = 0
        self.unknown_owners = 0
        self.losses = Losses()
        self._leaving: deque[tuple[float, bytes]] = deque()

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
            self.filters.follow(self._obj, change.hierarchy, change.path, tell)
        elif change.selected:
            key = cgroup_key(change.hierarchy, change.cgroup_id)
            self._leaving.append((time.monotonic() + FORGET_CGROUP_AFTER_S, key))
            given = self.filters.is_given(change.hierarchy, change.path)
            if given:
                tell(f"--cgroup {given}: it was removed; the run goes on, also if it comes back")

    def _forget_cgroups(self) -> None:
        now = time.monotonic()
        while self._leaving and self._leaving[0][0] <= now:
            self._obj.map("selected_cgroups").discard(self._leaving.popleft()[1])

    def _emit(self, batch: list[bytes]) -> bool:
        """Write a batch; tell whether the limit is reached."""
        records = self._separate(batch)
        limit = self.options.limit
        if limit is not None:
            records = records[: limit - self.records]
        if records:
            self.records += len(records)
            unknown = OwnerSource.OWNER_UNKNOWN
            self.unknown_owners += sum(raw[OWNER_SOURCE] == unknown for raw in records)
            self.out.write(self.renderer.rows(records))
        return limit is not None and self.records >= limit

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
            signals = cleanup.enter_context(stop.on_signals())
            options, command = self.options, self.command
            launch = Launch(command.object, command.layouts, self.filters, options.buffer)
            obj, extra = launch.start(self.extras, options.btf, options.hook)
            self._obj = cleanup.enter_context(obj)
            ring = obj.ring("ring")
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
        ended = False
        for batch in pipeline.batches(ring, stop, signals, STDOUT):
            ended = self._emit(batch)
            if ended:
                break
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOST_EVERY_S
                self.clock.adjust()
                self._forget_cgroups()
                self._check_lost()
        self._obj.detach()
        if not ended:
            for batch in pipeline.drain(ring):
                if self._emit(batch):
                    break
        self._check_lost()
        self._summary()
