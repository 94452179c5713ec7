# SPDX-License-Identifier: BSD-2-Clause
"""What is written, to readers of every kind: those that stall, that are slow, that are gone."""

from __future__ import annotations

import io
import os
import pty
import socket
import subprocess
import sys
import threading
import tty
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgnet.run import output
from cgnet.run.output import STALLED, Patience, Stderr, Writer, encode, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MUCH = b"x" * (1 << 22)  # more than any pipe, socket or terminal takes
PATIENCE_S = 30.0
CGNET = Path(sys.executable).parent / "cgnet"
HOSTILE = "\x1b]0;PWN\x07\x1b[31m\r\x9b\u202e\u2028end"


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def sockets() -> Iterator[tuple[int, int]]:
    reader, writer = socket.socketpair()
    with reader, writer:
        yield reader.fileno(), writer.fileno()


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    leader, follower = pty.openpty()
    tty.setraw(follower)
    try:
        yield leader, follower
    finally:
        os.close(leader)
        os.close(follower)


PLACES = pytest.mark.parametrize("place", [pipe, sockets, terminal])


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "STALL_S", 0.2)


def ended(*, now: bool = False) -> Patience:
    return Patience(lambda: True, lambda: now)


def read_all(fd: int, size: int) -> bytes:
    found = b""
    while len(found) < size and (data := os.read(fd, 1 << 16)):
        found += data
    return found


@PLACES
@pytest.mark.usefixtures("short")
def test_a_reader_that_stalls_is_left_when_the_run_ends(place: Callable) -> None:
    with place() as (reader, fd):
        writer = Writer(fd, ended())
        taken = writer.write(MUCH)
        assert writer.problem == STALLED
        assert 0 < taken < len(MUCH)
        assert read_all(reader, taken) == MUCH[:taken]
        assert writer.write(b"more") == 0
        assert os.get_blocking(fd)
        writer.close()


@PLACES
def test_others_that_write_there_keep_a_descriptor_that_blocks(place: Callable) -> None:
    with place() as (_, fd):
        writer = Writer(fd)
        assert writer.write(b"a") == 1
        assert os.get_blocking(fd)
        writer.close()


@PLACES
def test_a_slow_reader_gets_everything(place: Callable) -> None:
    with place() as (reader, fd):
        writer = Writer(fd, ended())
        found: list[bytes] = []
        thread = threading.Thread(target=lambda: found.append(read_all(reader, len(MUCH))))
        thread.start()
        assert (writer.write(MUCH), writer.problem) == (len(MUCH), "")
        thread.join(PATIENCE_S)
        assert found == [MUCH]
        writer.close()


def test_a_run_that_goes_on_waits_for_its_reader() -> None:
    asked: list[bool] = []

    def ending() -> bool:
        asked.append(True)
        return len(asked) > 3

    with pipe() as (_, fd):
        writer = Writer(fd, Patience(ending, lambda: True))
        writer.write(MUCH)
        assert (writer.problem, len(asked)) == (STALLED, 4)
        writer.close()


def test_a_second_request_ends_it_at_once() -> None:
    with pipe() as (_, fd):
        writer = Writer(fd, ended(now=True))
        began = monotonic()
        writer.write(MUCH)
        assert (writer.problem, monotonic() - began < output.STALL_S) == (STALLED, True)
        writer.close()


def test_a_reader_that_takes_little_is_waited_for_a_bounded_time() -> None:
    patience = ended()
    waits = 0
    while patience(0.5, taken=True):
        waits += 1
    assert waits == output.END_S / 0.5 - 1


def test_time_before_the_end_is_not_counted() -> None:
    ending = False
    patience = Patience(lambda: ending, lambda: False)
    assert all(patience(100.0, taken=False) for _ in range(3))
    ending = True
    assert patience(output.STALL_S / 2, taken=False)
    assert not patience(output.STALL_S / 2, taken=False)


@pytest.mark.usefixtures("short")
def test_a_pipe_that_cannot_be_opened_anew_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise FileNotFoundError(2, "No such file or directory")

    with pipe() as (reader, fd):
        monkeypatch.setattr(os, "open", refuse)
        writer = Writer(fd, ended())
        taken = writer.write(MUCH)
        assert (writer.problem, taken > 0) == (STALLED, True)
        assert read_all(reader, taken) == MUCH[:taken]


def test_a_full_disk_is_a_problem_and_no_exception() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    writer = Writer(full)
    assert (writer.write(b"a"), writer.problem) == (0, "No space left on device")
    os.close(full)


@pytest.mark.parametrize("place", [pipe, sockets])
def test_a_reader_that_went_away_raises(place: Callable) -> None:
    with place() as (reader, fd):
        writer = Writer(fd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), reader)
        with pytest.raises(BrokenPipeError):
            writer.write(MUCH)
        writer.close()


def test_all_that_was_opened_is_closed() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for place in (pipe, sockets, terminal):
        with place() as (_, fd):
            writer = Writer(fd)
            writer.write(b"a")
            writer.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@given(st.lists(st.text(max_size=5), min_size=1), st.integers(0, 200))
def test_rows_are_whole_when_all_their_bytes_are_out(rows: list[str], taken: int) -> None:
    def render(some: list[str]) -> str:
        return "above\n" + "".join(f"{row}\n" for row in some)

    shown = whole(rows, render, taken)
    sizes = [len(encode(render(rows[:count]))) for count in range(1, len(rows) + 1)]
    assert shown == sum(size <= taken for size in sizes)


class OnPipe:
    """Standard error, with a pipe for its descriptor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reader: int, writer: int) -> None:
        self.reader = reader
        monkeypatch.setattr(output, "STDERR", writer)
        self.stream = Stderr()

    def read(self) -> str:
        return os.read(self.reader, 1 << 20).decode()


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[OnPipe]:
    with pipe() as ends:
        yield OnPipe(monkeypatch, *ends)


def test_what_is_said_is_escaped(stderr: OnPipe) -> None:
    stderr.stream.write(f"cgnet: {HOSTILE}\n\tnext µ\n")
    assert stderr.read() == (
        "cgnet: \\x1b]0;PWN\\x07\\x1b[31m\\r\\x9b\\u202e\\u2028end\n        next µ\n"
    )


@given(st.text())
def test_no_text_moves_a_cursor_or_turns_the_line(text: str) -> None:
    with pipe() as ends, pytest.MonkeyPatch.context() as patch:
        stderr = OnPipe(patch, *ends)
        stderr.stream.write(text + ".")
        shown = stderr.read()
    assert all(char.isprintable() or char == "\n" for char in shown if char.isascii())
    assert not {"\x85", "\x9b", "\u202e", "\u2066", "\u2028"} & set(shown)


@pytest.mark.usefixtures("short")
def test_a_stalled_reader_of_errors_does_not_stall_the_run(stderr: OnPipe) -> None:
    stderr.stream.write("x" * (1 << 20))
    began = monotonic()
    for _ in range(1000):
        stderr.stream.write("more\n")
    assert monotonic() - began < PATIENCE_S / 10
    stderr.read()  # all that the pipe held
    stderr.stream.write("and on\n")
    assert stderr.read() == "\ncgnet: 1001 messages were left out: nobody read them\nand on\n"
    assert not stderr.stream.failed


def test_errors_that_cannot_be_written_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(output, "STDERR", full)
    stream = Stderr()
    assert (stream.write("it\n"), stream.failed) == (3, True)
    os.close(full)


def test_nobody_who_reads_errors_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(output, "STDERR", writer)
    stream = Stderr()
    os.close(reader)
    assert (stream.write("it\n"), stream.failed) == (3, False)
    os.close(writer)


def test_a_name_cannot_begin_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    output.tell("--cgroup /a\ncgnet: all is well\x1b[2J")
    assert said.getvalue() == "cgnet: --cgroup /a\n  cgnet: all is well\\x1b[2J\n"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line with cgnet as $CGNET; stdout and stderr of the shell are apart."""
    return subprocess.run(
        ["/bin/sh", "-c", line],
        check=False,
        capture_output=True,
        timeout=PATIENCE_S * 2,
        env={**os.environ, "CGNET": str(CGNET), **environment},
    )


COMMANDS = ["--help", "--version", "life --help", "containers", "doctor", "drop --list-reasons"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_a_sentence(command: str) -> None:
    done = shell(f'"$CGNET" {command} >/dev/full')
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        [b"cgnet: can't write the output: No space left on device"],
    )


@pytest.mark.parametrize("command", [*COMMANDS, "connect", "connect --nosuch"])
@pytest.mark.parametrize("also", ["", "<&-"])
def test_closed_standard_output_is_a_sentence(command: str, also: str) -> None:
    done = shell(f'"$CGNET" {command} >&- {also}')
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (
        1,
        b"",
        [b"cgnet: can't write the output: standard output is closed"],
    )


@pytest.mark.parametrize("command", ["connect --nosuch", "connect --uid nobody-has-this"])
@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_what_belongs_on_standard_error_never_goes_to_the_output(command: str, how: str) -> None:
    done = shell(f'"$CGNET" {command} {how}')
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


@pytest.mark.parametrize("command", ["--help", "connect", "doctor"])
def test_with_nothing_open_it_ends(command: str) -> None:
    done = shell(f'"$CGNET" {command} <&- >&- 2>&-')
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


NO_UTF8 = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}


@pytest.mark.parametrize("environment", [NO_UTF8, {"LC_ALL": "POSIX"}], ids=str)
def test_text_and_names_are_utf8_in_any_locale(environment: dict[str, str]) -> None:
    shown = shell('"$CGNET" life --help', **environment)
    assert (shown.returncode, "…".encode() in shown.stdout, shown.stderr) == (0, True, b"")
    told = shell('"$CGNET" connect --uid "müller"', **environment)
    assert told.returncode == 2
    assert "--uid 'müller': no such user".encode() in told.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_an_encoding_that_lacks_a_character_is_no_fault(encoding: str) -> None:
    shown = shell('"$CGNET" life --help', PYTHONIOENCODING=encoding)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert b"\\u2026" in shown.stdout or "…".encode() in shown.stdout


FAULT = """
import click
from cgnet.cli import LazyGroup, main
def callback():
    raise ZeroDivisionError("of \\x1b[31m")
LazyGroup.get_command = lambda *_: click.Command("connect", callback=callback)
main([{}"connect"])
"""


@pytest.mark.parametrize("verbose", [False, True])
def test_a_fault_of_the_program_itself_is_a_sentence(verbose: bool) -> None:
    code = FAULT.format('"-v", ' if verbose else "")
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, "Traceback" in done.stderr) == (1, verbose)
    assert last.startswith("cgnet: a fault of cgnet itself: ZeroDivisionError: of \\x1b[31m (")
    assert "\x1b" not in done.stderr
