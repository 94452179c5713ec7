# SPDX-License-Identifier: BSD-2-Clause
"""Readers that stall, and names that strangers chose: what comes out, and that the run ends."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from harness import (
    CGNET,
    HIERARCHY,
    PATIENCE_S,
    listener,
    new_cgroup,
    run,
    tracing,
    unique,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ATTEMPTS = 300
HOSTILE = b"\x1b]0;PWN\x07\x1b[31m\r\xe2\x80\xaecgnet: all is well"  # a line feed is refused


@pytest.fixture
def group() -> Iterator[Path]:
    with new_cgroup(HIERARCHY) as path:
        yield path


@pytest.fixture
def port() -> Iterator[int]:
    with listener() as found:
        yield found


class Stalled:
    """A tracer, one of whose outputs nobody reads: a pipe of a page."""

    def __init__(self, stream: str, *arguments: str) -> None:
        self.reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        if stream == "stderr":
            os.write(writer, b"x" * 4096)
        ends = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: writer}
        self.process = subprocess.Popen([CGNET, "connect", "-o", "json", *arguments], **ends)
        os.close(writer)

    def wait_for_tracing(self) -> None:
        """Read standard error until then, and no more."""
        assert self.process.stderr is not None
        said = b""
        while b"tracing" not in said:
            assert select.select([self.process.stderr], [], [], PATIENCE_S)[0]
            found = os.read(self.process.stderr.fileno(), 1 << 16)
            assert found, said
            said += found

    def is_full(self) -> bool:
        """Whether the pipe has no room for a row."""
        count = bytearray(4)
        fcntl.ioctl(self.reader, 0x541B, count)  # FIONREAD
        return int.from_bytes(count, "little") > 3000

    def held(self) -> list[str]:
        with open(self.reader, encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            return file.read().splitlines()


@contextmanager
def stalled(stream: str, *arguments: str) -> Iterator[Stalled]:
    tracer = Stalled(stream, *arguments)
    try:
        yield tracer
    finally:
        tracer.process.kill()
        tracer.process.communicate()


@pytest.mark.parametrize("how", ["--duration", signal.SIGTERM, signal.SIGINT], ids=str)
def test_a_stalled_reader_keeps_no_run_from_its_end(group: Path, port: int, how: Any) -> None:
    arguments = ["--duration", "10"] if how == "--duration" else []
    with stalled("stdout", "--cgroup", str(group), *arguments) as tracer:
        tracer.wait_for_tracing()
        run("connect", "127.0.0.1", port, ATTEMPTS, cgroups=(group,))
        wait_until("the pipe is full", tracer.is_full)
        if how != "--duration":
            tracer.process.send_signal(how)
        assert tracer.process.wait(PATIENCE_S) == 0
        assert tracer.process.stderr is not None
        *_, lost, summary = tracer.process.stderr.read().decode().splitlines()
        shown = 0
        for line in tracer.held()[:-1]:
            shown += json.loads(line)["type"] == "connect"
        assert lost.startswith(f"cgnet: lost {ATTEMPTS - shown} (output): ")
        assert summary.startswith(f"cgnet: {shown} records, {ATTEMPTS - shown} lost, ")


def test_a_reader_that_wakes_before_the_end_gets_every_row(group: Path, port: int) -> None:
    with stalled("stdout", "--cgroup", str(group)) as tracer:
        tracer.wait_for_tracing()
        run("connect", "127.0.0.1", port, ATTEMPTS, cgroups=(group,))
        wait_until("the pipe is full", tracer.is_full)
        held: list[str] = []
        thread = threading.Thread(target=lambda: held.extend(tracer.held()))
        thread.start()
        tracer.process.send_signal(signal.SIGTERM)
        assert tracer.process.wait(PATIENCE_S) == 0
        thread.join(PATIENCE_S)
    *rows, summary = map(json.loads, held)
    assert (len(rows), summary["records"], summary["lost"]) == (ATTEMPTS, ATTEMPTS, 0)


def test_stalled_errors_keep_no_row_back(group: Path, port: int) -> None:
    with stalled("stderr", "--cgroup", str(group), "--limit", "20") as tracer:
        # What is said finds no room; so nothing tells when it traces.
        out: list[bytes] = []
        thread = threading.Thread(target=lambda: out.extend(tracer.process.stdout or ()))
        thread.start()
        while tracer.process.poll() is None:
            run("connect", "127.0.0.1", port, 5, cgroups=(group,))
        thread.join(PATIENCE_S)
    *rows, summary = map(json.loads, out)
    assert (tracer.process.returncode, len(rows), summary["lost"]) == (0, 20, 0)


def test_much_to_say_to_nobody_keeps_no_run_from_its_end() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    done = subprocess.run(
        [CGNET, "-v", "connect", "-o", "json", "--duration", "0.5"],
        check=False,
        stdout=subprocess.PIPE,
        stderr=writer,
        timeout=PATIENCE_S,
    )
    os.close(reader)
    os.close(writer)
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1])["type"] == "summary"


def test_names_of_strangers_are_escaped_on_standard_error(port: int) -> None:
    name = unique().encode() + HOSTILE
    arguments = ("--cgroup", str(HIERARCHY / os.fsdecode(name)))
    with new_cgroup(HIERARCHY, name) as path, tracing(*arguments) as tracer:
        run("connect", "127.0.0.1", port, cgroups=(path,))
        tracer.wait_for(1)
        wait_until("it is empty", lambda: not (path / "cgroup.procs").read_text())
        path.rmdir()
        tracer.wait_said("it was removed")
        path.mkdir()
        tracer.wait_said("it is there again")
        tracer.stop()
    said = "".join(tracer.said)
    assert "\\x1b]0;PWN\\x07" in said
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(said)
    assert all(line.startswith(("cgnet: ", "  ")) for line in tracer.said)
