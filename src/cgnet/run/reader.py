# SPDX-License-Identifier: BSD-2-Clause
"""Read the ring in batches of records, until the run is stopped."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cgnet.kernel.ring_buffer import BATCH_RECORDS
from cgnet.kernel.variants import CAP_SYS_NICE, effective_capabilities

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.kernel.ring_buffer import Reader

# The kernel side wakes no reader. Records wait this long at most; rows must be out in 100 ms.
TICK_MS = 50
MUCH = 0.25  # share of the ring that is filled
RATE_SPAN_S = 1.0
AGAIN_MS = 5
LAST_PRIORITY = 10  # of nice(2); at 19 it starves for seconds when many tasks want the CPU


class Stop:
    """Why and when to end: a signal, the duration, or a closed output."""

    def __init__(self, duration: float | None) -> None:
        """``duration`` is in seconds from ``start()``; None: unlimited."""
        self._duration = duration
        self.deadline: float | None = None
        self.requested = False
        self.insisted = False  # requested again: end at once

    def start(self) -> None:
        """Begin to count the time, after loading."""
        if self._duration is not None:
            self.deadline = time.monotonic() + self._duration

    def reached(self) -> bool:
        """Return whether to end now."""
        expired = self.deadline is not None and time.monotonic() >= self.deadline
        return self.requested or expired

    def wait_ms(self) -> int:
        """Return how many milliseconds to wait for records."""
        if self.deadline is None:
            return TICK_MS
        left = self.deadline - time.monotonic()
        return max(0, int(min(TICK_MS, left * 1000 + 1)))

    @contextmanager
    def on_signals(self) -> Iterator[int]:
        """Let SIGINT and SIGTERM request the end; yield a descriptor that wakes poll()."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

        def request(_number: int, _frame: object) -> None:
            self.insisted = self.requested
            self.requested = True

        previous = {each: signal.signal(each, request) for each in (signal.SIGINT, signal.SIGTERM)}
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in previous.items():
                # Once the end is requested, another Ctrl-C doesn't interrupt it.
                signal.signal(number, signal.SIG_IGN if self.requested else handler)
            os.close(reader)
            os.close(writer)


@contextmanager
def interruptible(signals: int) -> Iterator[None]:
    """Have a signal interrupt the body's calls at once, also the verifier's, which may take 20 s.

    ``signals`` is the descriptor of on_signals(). The verifier stops for a signal, and libbpf tries
    four more times before it returns EAGAIN: so the signal is sent again until the body ends.
    """
    ended, done = os.pipe2(os.O_CLOEXEC)
    main = threading.get_ident()

    def repeat() -> None:
        poller = select.poll()
        poller.register(ended, select.POLLIN)
        poller.register(signals, select.POLLIN)
        if ended in dict(poller.poll()):
            return
        poller.unregister(signals)
        while not poller.poll(AGAIN_MS):
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.write(done, b".")
        thread.join()
        os.close(ended)
        os.close(done)


class ReaderPriority:
    """Runs at low priority, unless much data is waiting.

    A tracer that runs at equal priority stops the traced processes while it processes a batch. It
    may run last as long as the ring has room.
    """

    def __init__(self) -> None:
        """Keep our own priority if we couldn't restore it."""
        self._own = os.getpriority(os.PRIO_PROCESS, 0)
        self._last = LAST_PRIORITY if CAP_SYS_NICE in effective_capabilities() else self._own
        self._now = self._own

    def choose(self, filled: float) -> None:
        """Choose the priority for the next batch by the share of the ring that was filled."""
        wanted = self._own if filled >= MUCH else self._last
        if wanted != self._now:
            os.setpriority(os.PRIO_PROCESS, 0, wanted)
            self._now = wanted


class RateLimit:
    """A limit of rows within any second; None: unlimited."""

    def __init__(self, rows: int | None) -> None:
        """Begin with no rows."""
        self._rows = rows
        self._shown: deque[tuple[float, int]] = deque()  # when, and how many

    def take(self, wanted: int) -> int:
        """Return how many of the ``wanted`` rows may be printed now."""
        if self._rows is None:
            return wanted
        now = time.monotonic()
        while self._shown and self._shown[0][0] <= now - RATE_SPAN_S:
            self._shown.popleft()
        taken = min(wanted, self._rows - sum(number for _, number in self._shown))
        if taken:
            self._shown.append((now, taken))
        return taken


def batches(ring: Reader, stop: Stop, signals: int, output: int) -> Iterator[list[bytes]]:
    """Yield batches, maybe empty, every TICK_MS or sooner. Raises BrokenPipeError."""
    reader_priority = ReaderPriority()
    poller = select.poll()
    poller.register(signals, select.POLLIN)
    poller.register(output, 0)  # errors only: the reader closed its end
    full = False
    while not stop.reached():
        ready = dict(poller.poll(0 if full else stop.wait_ms()))
        if ready.get(output, 0) & (select.POLLERR | select.POLLHUP):
            raise BrokenPipeError
        batch = ring.consume()
        full = len(batch) >= BATCH_RECORDS
        reader_priority.choose(ring.filled)
        yield batch


def ticks(stop: Stop, signals: int, output: int) -> Iterator[None]:
    """Yield every TICK_MS until the end. Raises BrokenPipeError."""
    poller = select.poll()
    poller.register(signals, select.POLLIN)
    poller.register(output, 0)
    while not stop.reached():
        ready = dict(poller.poll(stop.wait_ms()))
        if ready.get(output, 0) & (select.POLLERR | select.POLLHUP):
            raise BrokenPipeError
        yield


def drain(ring: Reader) -> Iterator[list[bytes]]:
    """Yield the remaining records, once no program writes any more."""
    while batch := ring.consume():
        yield batch
