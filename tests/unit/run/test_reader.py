# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import ctypes
import math
import os
import select
import signal
from threading import Timer
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgnet.kernel.ring_buffer import BATCH_RECORDS
from cgnet.run import reader
from cgnet.run.reader import TICK_MS, RateLimit, Stop, batches, drain, interruptible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Time:
    """A clock that a test moves."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Ring:
    """Has batches to give. Nothing tells when: who reads must look."""

    filled = 0.0

    def __init__(self, *waiting: list[bytes], then: Callable[[], None] = lambda: None) -> None:
        self.waiting = list(waiting)
        self.then = then

    def consume(self) -> list[bytes]:
        if not self.waiting:
            self.then()
            return []
        return self.waiting.pop(0)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    moved = Time()
    monkeypatch.setattr(reader, "time", SimpleNamespace(monotonic=moved.monotonic))
    return moved


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_without_a_duration_only_a_request_ends_it(time: Time) -> None:
    stop = Stop(None)
    stop.start()
    time.now += 1e9
    assert (stop.reached(), stop.wait_ms()) == (False, TICK_MS)
    stop.requested = True
    assert stop.reached()


def test_a_duration_counts_from_start_and_not_from_before(time: Time) -> None:
    stop = Stop(10)
    time.now += 60
    assert not stop.reached()
    stop.start()
    time.now += 9.999
    assert not stop.reached()
    time.now += 0.001
    assert stop.reached()


def test_the_last_wait_ends_with_the_duration(time: Time) -> None:
    stop = Stop(1)
    stop.start()
    assert stop.wait_ms() == TICK_MS
    time.now += 0.990
    assert stop.wait_ms() in {10, 11}
    time.now += 5
    assert stop.wait_ms() == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1e12), st.floats(0, 1e6))
def test_a_wait_is_never_longer_than_a_tick(time: Time, duration: float, later: float) -> None:
    stop = Stop(duration)
    stop.start()
    time.now += later
    assert 0 <= stop.wait_ms() <= TICK_MS


def test_an_endless_duration_is_waited_for_as_none_is(time: Time) -> None:
    stop = Stop(math.inf)
    stop.start()
    time.now += 1e9
    assert (stop.reached(), stop.wait_ms()) == (False, TICK_MS)


def test_without_a_rate_all_rows_are_shown() -> None:
    assert [RateLimit(None).take(wanted) for wanted in (0, 1, 10**9)] == [0, 1, 10**9]


def test_a_rate_holds_for_all_batches_of_a_second_together(time: Time) -> None:
    rate = RateLimit(5)
    assert [rate.take(wanted) for wanted in (0, 3, 3, 3)] == [0, 3, 2, 0]
    time.now += 0.999
    assert rate.take(1) == 0
    time.now += 0.001
    assert [rate.take(wanted) for wanted in (9, 1)] == [5, 0]
    time.now += 3600  # what wasn't used is not saved up
    assert [rate.take(wanted) for wanted in (4, 4)] == [4, 1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 9), st.lists(st.tuples(st.floats(0, 2), st.integers(0, 9)), max_size=20))
def test_no_second_has_more_rows_than_the_rate(
    time: Time, rows: int, wishes: list[tuple[float, int]]
) -> None:
    rate, shown = RateLimit(rows), list[tuple[float, int]]()
    for later, wanted in wishes:
        time.now += later
        taken = rate.take(wanted)
        shown.append((time.now, taken))
        last_second = sum(number for when, number in shown if when > time.now - 1)
        assert last_second <= rows
        assert taken == wanted or last_second == rows


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_requests_the_end_and_wakes_poll(number: signal.Signals) -> None:
    stop = Stop(None)
    with stop.on_signals() as woken:
        assert select.select([woken], [], [], 0)[0] == []
        signal.raise_signal(number)
        assert stop.reached()
        assert select.select([woken], [], [], 0)[0] == [woken]


def test_many_signals_are_as_good_as_one() -> None:
    stop = Stop(None)
    with stop.on_signals():
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        assert stop.reached()


def test_handlers_are_put_back_also_after_an_error() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(ZeroDivisionError), Stop(None).on_signals() as woken:
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(woken)


def test_batches_come_in_order_until_stop(pipe: tuple[int, int]) -> None:
    stop = Stop(None)
    ring = Ring([b"a", b"b"], [b"c"], then=lambda: setattr(stop, "requested", True))
    assert list(batches(ring, stop, pipe[0], pipe[1])) == [[b"a", b"b"], [b"c"], []]


def test_a_full_batch_is_followed_without_waiting(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop(None)
    ring = Ring([b"x"] * BATCH_RECORDS, [b"y"], then=lambda: setattr(stop, "requested", True))
    waits: list[int] = []
    monkeypatch.setattr(stop, "wait_ms", lambda: waits.append(len(ring.waiting)) or 0)
    found = [len(batch) for batch in batches(ring, stop, pipe[0], pipe[1])]
    assert found == [BATCH_RECORDS, 1, 0]
    assert waits == [2, 0]  # with one batch waiting, it was not asked for


def test_an_empty_ring_is_looked_at_again_after_a_tick(pipe: tuple[int, int]) -> None:
    stop = Stop(None)
    ring = Ring([], [], [b"late"], then=lambda: setattr(stop, "requested", True))
    began = monotonic()
    assert list(batches(ring, stop, pipe[0], pipe[1])) == [[], [], [b"late"], []]
    assert monotonic() - began >= 4 * TICK_MS / 1000 * 0.9


@pytest.mark.parametrize("woken_by", ["a signal", "a reader that went away"])
def test_a_wait_is_cut_short(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, woken_by: str
) -> None:
    stop = Stop(None)
    monkeypatch.setattr(stop, "wait_ms", lambda: 20_000)
    reader, output = os.pipe()
    began = monotonic()
    if woken_by == "a signal":
        os.write(pipe[1], b"x")
        assert next(batches(Ring([b"a"]), stop, pipe[0], output)) == [b"a"]
        os.close(reader)
    else:
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            next(batches(Ring([b"a"]), stop, pipe[0], output))
    os.close(output)
    assert monotonic() - began < 10


def test_nothing_is_read_once_the_end_is_requested(pipe: tuple[int, int]) -> None:
    stop = Stop(None)
    stop.requested = True
    ring = Ring([b"left"])
    assert list(batches(ring, stop, pipe[0], pipe[1])) == []
    assert list(drain(ring)) == [[b"left"]]


def test_a_reader_that_went_away_raises(pipe: tuple[int, int]) -> None:
    reader, output = os.pipe()
    os.close(reader)
    ring = Ring([b"a"])
    with pytest.raises(BrokenPipeError):
        next(batches(ring, Stop(None), pipe[0], output))
    os.close(output)


def test_a_reader_that_still_reads_does_not(pipe: tuple[int, int]) -> None:
    other, output = os.pipe()
    ring = Ring([b"a"])
    assert next(batches(ring, Stop(None), pipe[0], output)) == [b"a"]
    for fd in (other, output):
        os.close(fd)


def test_output_to_a_file_is_never_a_reader_that_went_away(
    pipe: tuple[int, int], tmp_path: os.PathLike[str]
) -> None:
    with open(os.path.join(tmp_path, "out"), "wb") as file:  # noqa: PTH118, PTH123
        ring = Ring([b"a"])
        assert next(batches(ring, Stop(None), pipe[0], file.fileno())) == [b"a"]


def test_drain_takes_what_is_left_and_ends() -> None:
    ring = Ring([b"a"], [b"b", b"c"])
    assert list(drain(ring)) == [[b"a"], [b"b", b"c"]]
    assert list(drain(ring)) == []


def test_a_signal_is_sent_again_until_the_start_gives_up() -> None:
    """As libbpf tries five times to load a program that the verifier left for a signal."""
    stop, libc = Stop(None), ctypes.CDLL(None)
    with stop.on_signals() as signals, interruptible(signals):
        Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()
        for _ in range(5):
            assert libc.pause() == -1
    assert stop.requested


def test_without_a_signal_none_is_sent() -> None:
    stop, before = Stop(None), signal.getsignal(signal.SIGINT)
    with stop.on_signals() as signals, interruptible(signals):
        assert signal.getsignal(signal.SIGINT) != before
    assert not stop.requested
    assert signal.getsignal(signal.SIGINT) == before


def test_who_ends_for_a_signal_is_not_broken_off_by_the_next() -> None:
    stop = Stop(None)
    with stop.on_signals():
        signal.raise_signal(signal.SIGINT)
    assert stop.requested
    signal.raise_signal(signal.SIGINT)
