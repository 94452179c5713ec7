# SPDX-License-Identifier: BSD-2-Clause
"""What people see on a terminal: rows that don't wrap, screens that stay, names that nobody has."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from harness import (
    CGNET,
    HIERARCHY,
    PATIENCE_S,
    PYTHON,
    listener,
    new_cgroup,
    run,
    unique,
    wait_until,
)
from router_chain import chain

from cgnet.render.layout import cells

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLEAR = "\x1b[H\x1b[2J"
SGR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A cgnet whose standard output and standard error are a terminal of a size."""

    def __init__(self, width: int, lines: int, *arguments: str) -> None:
        self.leader, follower = pty.openpty()
        self.resize(width, lines)
        environment = {**os.environ, "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [CGNET, *arguments], stdout=follower, stderr=follower, env=environment
        )
        os.close(follower)
        self._read = b""
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def resize(self, width: int, lines: int) -> None:
        fcntl.ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("HHHH", lines, width, 0, 0))

    def _follow(self) -> None:
        while True:
            try:
                data = os.read(self.leader, 1 << 16)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            self._read += data

    @property
    def text(self) -> str:
        """Everything that was written, without colours."""
        return SGR.sub("", self._read.decode(errors="replace")).replace("\r", "")

    @property
    def rows(self) -> list[str]:
        """The lines that aren't messages."""
        lines = self.text.replace(CLEAR, "").splitlines()
        return [line for line in lines if line and not line.startswith(("cgnet: ", "  "))]

    @property
    def screen(self) -> list[str]:
        """What was written since the last time that the screen was cleared."""
        return self.text.rpartition(CLEAR)[2].splitlines()

    def wait(self, text: str, times: int = 1) -> None:
        wait_until(lambda: f"{text!r} in {self.text}", lambda: self.text.count(text) >= times)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE_S) == 0, self.text
        self._reader.join(PATIENCE_S)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE_S)
        os.close(self.leader)


@contextmanager
def terminal(width: int, lines: int, *arguments: str, ready: str = "tracing") -> Iterator[Terminal]:
    found = Terminal(width, lines, *arguments)
    try:
        found.wait(ready)
        yield found
    finally:
        found.end()


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup with a name of 64 characters, wide ones among them."""
    with new_cgroup(HIERARCHY, unique("容器" * 6).ljust(52, "x")) as path:
        yield path


@pytest.fixture
def port() -> Iterator[int]:
    with listener() as found:
        yield found


@pytest.fixture
def port6() -> Iterator[int]:
    with listener(address="::1") as found:
        yield found


COMMANDS = [
    ("connect", {"TIME", "CONTAINER/CGROUP", "DESTINATION", "PORT", "RESULT", "LATENCY"}),
    ("life", {"CONTAINER/CGROUP", "DESTINATION", "PORT", "SENT", "RECEIVED", "CAUSE"}),
    ("drop --all", {"CONTAINER/CGROUP", "SOURCE", "DESTINATION", "PORT", "REASON"}),
    ("rtt --slower 1us", {"TIME", "CONTAINER/CGROUP", "DESTINATION", "PORT", "RTT", "SRTT"}),
]


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("case", COMMANDS, ids=[line for line, _ in COMMANDS])
def test_a_row_takes_one_line(
    case: tuple[str, set[str]], width: int, group: Path, port: int, port6: int
) -> None:
    line, kept = case
    with terminal(width, 24, *line.split(), "--cgroup", str(group)) as shown:
        run("connect", "127.0.0.1", port, cgroups=(group,))
        run("connect", "::1", port6, cgroups=(group,))
        run("connect", "127.0.0.1", 1, cgroups=(group,))  # nobody listens
        run("connect", "::1", 1, cgroups=(group,))
        wait_until(lambda: shown.text, lambda: len(shown.rows) >= 3)
        shown.stop()
    assert max(map(cells, shown.rows)) <= width
    header, *rows = shown.rows
    if width == 80:
        assert {name for name in kept if name in header} == kept
        assert [row for row in rows if "…" not in row] == []  # of the cgroup's name


@pytest.mark.parametrize("width", [40, 80])
def test_a_packets_lines_fit(width: int, group: Path, port: int) -> None:
    with terminal(width, 24, "trace", "--cgroup", str(group), "--functions", "none") as shown:
        run("connect", "127.0.0.1", port, cgroups=(group,))
        shown.wait("total")
        shown.stop()
    lines = [line for line in shown.text.splitlines() if not line.startswith("cgnet: ")]
    assert max(map(cells, lines)) <= width


def test_rows_follow_the_terminals_width(group: Path, port: int) -> None:
    with terminal(80, 24, "connect", "--cgroup", str(group)) as shown:
        run("connect", "127.0.0.1", port, cgroups=(group,))
        shown.wait(" ok")
        shown.resize(160, 24)
        run("connect", "127.0.0.1", port, cgroups=(group,))
        shown.wait(" ok", 2)
        shown.stop()
    headers = [row for row in shown.rows if row.startswith("TIME")]
    assert [cells(row) <= 80 for row in headers] == [True, False]
    assert "COMM" in headers[1]


LISTENS = """
import os, socket, sys
with open(sys.argv[1], "w") as procs:
    procs.write(str(os.getpid()))
listeners = [socket.create_server((address, int(sys.argv[2])), family=family)
             for address, family in (("127.1.2.3", socket.AF_INET), ("::1", socket.AF_INET6))]
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def listening_in(group: Path, port: int) -> Iterator[None]:
    """Have a process of a cgroup listen at two addresses."""
    command = [PYTHON, "-c", LISTENS, f"{group}/cgroup.procs", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("more", [(), ("-i", "1")])
def test_a_socket_takes_one_line(more: tuple[str, ...], width: int, group: Path) -> None:
    with listening_in(group, 7):
        arguments = ("sockets", "--cgroup", str(group), *more)
        with terminal(width, 24, *arguments, ready="LISTEN") as shown:
            if more:
                wait_until(lambda: shown.text, lambda: len(shown.rows) >= 5)
            else:
                shown.process.wait(PATIENCE_S)
            shown.stop()
    assert max(map(cells, shown.rows)) <= width
    header, *rows = shown.rows
    if width == 80:
        kept = {"CONTAINER/CGROUP", "STATE", "SPORT", "DESTINATION", "PORT", "RECVQ", "SENDQ"}
        assert {*header.split()} == kept
        assert {cells(row[: row.index(" LISTEN")]) for row in rows} == {header.index(" STATE")}


@pytest.mark.parametrize("width", [40, 80, 200])
def test_what_is_sent_again_takes_one_line(width: int, group: Path) -> None:
    with (
        chain(1) as (client, router, server),
        terminal(width, 24, "retrans", "--netns", str(client.inode)) as shown,
    ):
        for family in (4, 6):
            address = server.address(family)
            with router.firewall("forward", "tcp dport 9 drop"):
                run("own_timeout", address, 9, cgroups=(group,), netns=client.netns)
        wait_until(lambda: shown.text, lambda: len(shown.rows) >= 3)
        shown.stop()
    assert max(map(cells, shown.rows)) <= width
    header, *rows = shown.rows
    if width == 80:
        kept = {"CONTAINER/CGROUP", "DESTINATION", "PORT", "CAUSE", "LEN", "TRY"}
        assert {*header.split()} == kept
        assert {cells(row[: row.index(" syn")]) for row in rows} == {header.index(" CAUSE")}


def many_ports(group: Path) -> None:
    """Connect to many ports where nobody listens: to the first one most often."""
    with (group / "cgroup.procs").open("w") as procs:
        procs.write("0")
    for port in (2, 2, *range(2, 62)):
        with socket.socket() as sock:
            sock.connect_ex(("127.0.0.1", port))


def refused_in(group: Path) -> None:
    child = os.fork()
    if not child:
        try:
            many_ports(group)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_counts_keep_the_header_and_the_greatest_and_stay_after_ctrl_c(group: Path) -> None:
    arguments = ("connect", "-i", "2", "--by", "dport", "--cgroup", str(group))
    with terminal(80, 24, *arguments) as shown:
        refused_in(group)
        shown.wait("more lines")
        refused_in(group)  # in the interval that Ctrl-C ends
        shown.stop()
    if "aren't shown" not in shown.text:  # they made it into an interval of their own
        pytest.skip("the test was stopped for an interval's length")
    header, first, *rest = shown.screen
    assert header.split() == ["TIME", "PORT", "COUNT"]
    assert first.split()[1:] == ["2", "3"]
    assert len(shown.screen) < 24
    assert rest[-1].startswith("cgnet: ")
    assert any(line.endswith("more lines") for line in rest)


def test_counts_that_are_printed_once_leave_the_screen_as_it_was(group: Path) -> None:
    with terminal(80, 24, "connect", "-c", "--by", "dport", "--cgroup", str(group)) as shown:
        refused_in(group)
        shown.stop()
    assert CLEAR not in shown.text
    assert sum(row.split()[-1] in "13" for row in shown.rows[1:]) == 60


def test_a_name_that_nobody_has_yet_is_said() -> None:
    arguments = ("--container", "webb", "--pod", "ns/web-0", "--unit", "nosuch")
    with terminal(200, 24, "connect", *arguments) as shown:
        shown.stop()
    assert "cgnet: no container named webb yet; waiting; cgnet containers lists them" in shown.text
    assert "cgnet: no pod named ns/web-0 yet; waiting" in shown.text
    assert "cgnet: no unit named nosuch.service yet; waiting" in shown.text


def test_a_pattern_that_no_cgroup_matches_yet_is_said(group: Path) -> None:
    arguments = ("--cgroup", "/nosuch*", "--cgroup", f"{group}*", "--cgroup", "!/neither*")
    with terminal(200, 24, "connect", *arguments) as shown:
        shown.stop()
    said = re.findall(r"no cgroup matches .*? lists them", shown.text)
    assert said == ["no cgroup matches /nosuch* yet; waiting; systemd-cgls lists them"]


def test_a_device_that_nobody_has_yet_is_said() -> None:
    with terminal(200, 24, "drop", "--dev", "nosuch0", "--dev", "lo") as shown:
        shown.stop()
    found = re.findall(r"cgnet: no network device .*", shown.text)
    assert [line for line in found if "named nosuch0 yet; waiting" in line] == found != []


def test_redirected_rows_are_whole_and_aligned(
    group: Path, port: int, port6: int, tmp_path: Path
) -> None:
    path = tmp_path / "rows"
    with path.open("w") as output:
        process = subprocess.Popen(
            [CGNET, "connect", "--cgroup", str(group)],
            stdout=output, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            while "tracing" not in process.stderr.readline():
                assert process.poll() is None
            run("connect", "127.0.0.1", port, cgroups=(group,))
            run("connect", "::1", port6, cgroups=(group,))
            wait_until("rows", lambda: len(path.read_text().splitlines()) == 3)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            process.communicate()
    header, *rows = path.read_text().splitlines()
    assert all(group.name in row for row in rows)
    assert {cells(row[: row.index(" ok")]) for row in rows} == {
        cells(header[: header.index(" RESULT")])
    }
