# SPDX-License-Identifier: BSD-2-Clause
"""Writers for standard output and standard error.

Neither blocks for good when its reader stalls. Text on standard error is escaped: strangers choose
names, and root's terminal obeys escape sequences.
"""

from __future__ import annotations

import io
import os
import select
import socket
import stat
import sys
import threading
import time
from bisect import bisect_right
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from cgnet.errors import CgnetError
from cgnet.render.text import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STDIN, STDOUT, STDERR = range(3)
TICK_S = 0.05
# How long a stalled reader is waited for once the run should end, and the maximum wait in all.
STALL_S = 1.0
END_S = 10.0
CONTINUED = "\n  "  # only the first line of a message begins like a message
STALLED = "nobody read it"
SLOW_S = 1.0


def tell(message: str) -> None:
    """Print a message on standard error."""
    lines = CONTINUED.join(map(escape, message.split("\n")))
    print(f"cgnet: {lines}", file=sys.stderr, flush=True)  # noqa: T201


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


class Patience:
    """How long to wait for a stalled reader: for ever, until the run should end."""

    def __init__(self, ending: Callable[[], bool], now: Callable[[], bool]) -> None:
        """``ending`` returns whether the run should end, ``now`` whether it should end at once."""
        self._ending = ending
        self._now = now
        self._stalled = self._waited = 0.0  # seconds since the run should end

    def __call__(self, waited: float, *, taken: bool) -> bool:
        """Return whether to wait on after ``waited`` seconds; ``taken``: some data was written."""
        if not self._ending():
            return True
        self._stalled = 0.0 if taken else self._stalled + waited
        self._waited += waited
        return not self._now() and self._stalled < STALL_S and self._waited < END_S


def _for_ever() -> Patience:
    return Patience(lambda: False, lambda: False)


class Writer:
    """An unbuffered writer to a descriptor.

    O_NONBLOCK belongs to the open file description, which others share: a pipe or a terminal is
    opened anew, and each write to a socket has MSG_DONTWAIT. Where that fails, poll() precedes each
    small write.
    """

    def __init__(self, fd: int, patience: Patience | None = None) -> None:
        """Write to a descriptor; without ``patience``, wait for its reader for ever."""
        self.problem = ""  # why nothing more is written
        self._patience = patience or _for_ever()
        self._poller = select.poll()
        self._poller.register(fd, select.POLLOUT)
        self._opened: list[Callable[[], None]] = []
        self._put = self._way(fd)

    def _way(self, fd: int) -> Callable[[memoryview], int]:
        """Return a function that writes as much as fits now."""
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            sock = socket.socket(fileno=os.dup(fd))
            self._opened.append(sock.close)
            return lambda data: sock.send(data, socket.MSG_DONTWAIT)
        if not stat.S_ISFIFO(mode) and not os.isatty(fd):
            return partial(os.write, fd)  # regular files don't wait for a reader
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            opened = os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:  # no /proc, or no permission
            return partial(self._put_little, fd)
        self._opened.append(partial(os.close, opened))
        return partial(os.write, opened)

    def _put_little(self, fd: int, data: memoryview) -> int:
        """Write at most PIPE_BUF bytes if poll() reports room: blocks only if others write, too."""
        if not self._poller.poll(0):
            raise BlockingIOError
        return os.write(fd, data[: select.PIPE_BUF])

    def write(self, data: bytes) -> int:
        """Return the number of bytes written; fewer than all if there is a ``problem``.

        Raises BrokenPipeError.
        """
        left = memoryview(data)
        while left and not self.problem:
            try:
                left = left[self._put(left) :]
            except BlockingIOError:
                self._wait()
            except BrokenPipeError:
                raise
            except OSError as error:
                self.problem = error.strerror or str(error)
        return len(data) - len(left)

    def _wait(self) -> None:
        """Wait until there is room, or until patience ends."""
        waited, ready = 0.0, False
        while self._patience(waited, taken=ready):
            if ready:
                return
            began = time.monotonic()
            ready = bool(self._poller.poll(TICK_S * 1000))
            waited = min(time.monotonic() - began, TICK_S)  # this process may have been stopped
        self.problem = STALLED

    def close(self) -> None:
        """Close the descriptors that this writer opened, not its own one."""
        while self._opened:
            self._opened.pop()()


def encode(text: str) -> bytes:
    """Return text as UTF-8; lone surrogates are escaped."""
    return text.encode(errors="backslashreplace")


def whole(rows: list[Any], render: Callable[[list[Any]], str], taken: int) -> int:
    """Return how many rows fit completely in the first ``taken`` bytes of their text."""
    sizes = range(1, len(rows) + 1)
    return bisect_right(sizes, taken, key=lambda count: len(encode(render(rows[:count]))))


class Stdout(io.RawIOBase):
    """Standard output outside runs, such as help and listings. Raises CgnetError on failure."""

    def __init__(self) -> None:
        """Write to descriptor 1."""
        self._writer = Writer(STDOUT)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return STDOUT

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(STDOUT)

    def write(self, data: Any) -> int:
        """Write all data. Raises BrokenPipeError, CgnetError."""
        done = self._writer.write(bytes(data))
        if self._writer.problem:
            raise cannot_write(self._writer.problem)
        return done


def cannot_write(problem: str) -> CgnetError:
    """Return the error for output that can't be written."""
    return CgnetError(f"can't write the output: {problem}")


class Stderr(io.TextIOBase):
    """Standard error, escaped. It never raises: no one could report the error."""

    def __init__(self) -> None:
        """Write to descriptor 2."""
        self._untold = 0  # messages dropped because the reader stalls
        self._writer = Writer(STDERR, Patience(lambda: True, lambda: self._untold > 0))
        self.failed = False

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return STDERR

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(STDERR)

    def write(self, text: str) -> int:
        """Write as much as the reader takes within a second."""
        if not self.failed:
            told = f"\ncgnet: {self._untold} messages were left out: nobody read them\n"
            lines = (told if self._untold else "") + text.expandtabs()
            self._write("\n".join(map(escape, lines.split("\n"))))
        return len(text)

    def _write(self, text: str) -> None:
        try:
            self._writer.write(encode(text))
        except BrokenPipeError:  # the reader is closed
            return
        if self._writer.problem == STALLED:
            self._writer.problem = ""
            self._untold += 1
        elif self._writer.problem:
            self.failed = True
        else:
            self._untold = 0


def _open_nothing() -> None:
    """Open /dev/null as the lowest free descriptor. Raises CgnetError."""
    try:
        os.open(os.devnull, os.O_RDWR)
    except OSError as error:
        raise CgnetError(
            f"{os.devnull}: {error.strerror}, and a standard file is closed"
        ) from error


def open_standard() -> None:
    """Open those of descriptors 0 to 2 that are closed, so that no other file gets their numbers.

    Sets sys.stdout and sys.stderr. Raises CgnetError if standard output was closed, or /dev/null
    can't be opened.
    """
    closed = []
    for fd in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(fd)
        except OSError:
            closed.append(fd)
            _open_nothing()
    sys.stderr = Stderr()
    encoding = sys.stdout.encoding if sys.stdout else "utf-8"
    sys.stdout = io.TextIOWrapper(
        Stdout(),
        encoding,
        "backslashreplace",
        write_through=True,
    )
    if STDOUT in closed:
        raise cannot_write("standard output is closed")
