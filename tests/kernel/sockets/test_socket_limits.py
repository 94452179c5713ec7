# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet sockets`` where things end while it looks, are many, have odd names, or aren't permitted."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from compare import inner
from harness import CGNET, HIERARCHY, PATIENCE_S, PYTHON, cgnet, netns_inode, new_cgroup, wait_until
from remote_python import RemotePython
from socket_lists import listed

from cgnet.commands.sockets import load
from cgnet.commands.sockets.walk import HOLDERS, Walk
from cgnet.filters.selection import Filters, Selection
from cgnet.records._layouts import SOCKET_EVENT, Role, SocketsConfig
from cgnet.records.schema import flow_row

if TYPE_CHECKING:
    from harness import Row

FLOW_PART = SOCKET_EVENT.slice("flow")
MANY = 65_535
SUPPORT = Path(__file__).parents[1] / "support"
# Threads with tables of files of their own: the limit on open files is that of a table.
HOLD = f"""
import ctypes, resource, socket, sys, threading
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
each = most - 100
kept = []

def hold(first):
    assert not ctypes.CDLL(None).unshare(0x400)  # CLONE_FILES
    for number in range(first, min(first + each, {MANY})):
        sock = socket.socket()
        sock.bind((f"127.0.{{1 + number // 20000}}.1", 10000 + number % 20000))
        sock.listen(1)
        kept.append(sock)
    ready.release()
    threading.Event().wait()

ready = threading.Semaphore(0)
for first in range(0, {MANY}, each):
    threading.Thread(target=hold, args=(first,), daemon=True).start()
    ready.acquire()
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("by_files", [True, False])
def test_a_namespace_and_a_process_may_end_while_they_are_read(netns: str, by_files: bool) -> None:
    """Between the answer about namespaces, and the walk over their tables."""
    filters = Filters(Selection(roles=frozenset(Role)))
    programs = {load.WALKS[0], *[HOLDERS] * by_files}
    constants = load.constants_of(filters, SocketsConfig())
    with load._load(programs, filters, constants, None) as obj:
        walk = Walk(obj, filters, by_files=by_files)
        command = ["unshare", "--net", PYTHON, str(SUPPORT / "many_namespaces.py"), "1", "3", "1"]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process, process.stdin, process.stdout:
            inode = int(process.stdout.readline())
            walk.begin()
            assert inode in {each.inode for each in walk.namespaces}
            process.kill()
            process.wait()
        found = [
            row
            for batch in walk.records(listeners=True, connections=True)
            for raw in batch
            if (row := flow_row(raw[FLOW_PART]))["netns"] == inode
        ]
        assert len(found) <= 1 + 2 * 2 + 1
        walk.begin()  # and another listing
        assert all(
            isinstance(each, list) for each in walk.records(listeners=True, connections=True)
        )
        assert netns_inode(netns) in {each.inode for each in walk.namespaces}


def test_all_sockets_of_a_process_that_has_very_many(netns: str) -> None:
    process = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{netns}", PYTHON, "-c", HOLD],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        try:
            assert process.stdout.readline() == "open\n"
            rows, summary = listed("--pid", str(process.pid))
            assert len({(row["saddr"], row["sport"]) for row in rows}) == len(rows) == MANY
            assert {row["owner_source"] for row in rows} == {"seeded"}
            assert (summary["missed"], summary["lost"]) == (0, 0)
        finally:
            process.kill()
            process.wait()


NAME = b"we\x1b[31mb\x07\xff"


def test_names_that_move_a_cursor(netns: str) -> None:
    """A stranger names a process and a cgroup: JSON and tables have no control character of theirs."""
    with (
        new_cgroup(HIERARCHY, NAME) as cgroup,
        RemotePython(f"/run/netns/{netns}", cgroups=(cgroup,)) as process,
    ):
        process.do("open('/proc/self/comm', 'wb').write(b'\\x1b]0;x\\x07\\xff')")
        process.do("server = socket.create_server(('127.0.0.1', 0))")
        place = ("--netns", f"/run/netns/{netns}")
        (row,), _ = listed(*place)
        assert "\x1b" in row["comm"]
        assert row["cgroup"].encode(errors="backslashreplace") == inner(cgroup, HIERARCHY).encode(
            errors="surrogateescape"
        ).replace(b"\xff", b"\\xff")
        for options in ((), ("-o", "wide"), ("-o", "csv"), ("--states",), ("--ports",)):
            done = subprocess.run(
                [CGNET, "sockets", *options, *place], check=True, capture_output=True
            )
            assert b"Traceback" not in done.stderr
            assert {byte for byte in done.stdout if byte < 0x20} == {ord("\n")}


def said(*prefix: str) -> tuple[list[Row], Row, str]:
    """Return the listeners that it lists behind a command, the summary, and what it says."""
    done = subprocess.run(
        [*prefix, CGNET, "sockets", "--listeners", "-o", "json"],
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = list(map(json.loads, done.stdout.splitlines()))
    return rows[:-1], rows[-1], done.stderr


def test_few_capabilities_are_enough(netns: str) -> None:
    """Without CAP_SYS_ADMIN, and all the others, it lists the same: no namespace is entered."""
    with RemotePython(f"/run/netns/{netns}") as process:
        port = process.listen("127.0.0.1")
        few = "-all,+bpf,+perfmon,+sys_ptrace"
        rows, summary, told = said("setpriv", f"--bounding-set={few}")
        (row,) = (row for row in rows if (row["netns"], row["sport"]) == (netns_inode(netns), port))
        assert (row["pid"], row["owner_source"]) == (process.pid, "seeded")
        assert told == ""
        assert summary["missed"] == 0


def test_without_the_right_to_load_it_says_which_capability() -> None:
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", "--", CGNET, "sockets"],
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 3
    assert "CAP_BPF" in done.stderr
    assert "Traceback" not in done.stderr


def test_in_a_pid_namespace_it_says_whose_sockets_it_doesnt_know(netns: str) -> None:
    """As in a container: it sees all sockets, and no process outside."""
    with RemotePython(f"/run/netns/{netns}") as process:
        port = process.listen("127.0.0.1")
        rows, _, told = said("unshare", "--pid", "--fork", "--mount-proc", "--cgroup")
        (row,) = (row for row in rows if (row["netns"], row["sport"]) == (netns_inode(netns), port))
        assert row["pid"] is None
        assert "PID namespace" in told


def test_a_closed_pipe_between_listings_ends_it() -> None:
    process = subprocess.Popen(
        [CGNET, "sockets", "-i", "0.2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 0
        assert "Traceback" not in process.stderr.read()


def test_a_signal_ends_it_between_listings_with_a_summary(tmp_path: Path) -> None:
    """It says that it traces after the first listing: of a busy host more than a pipe holds."""
    with (tmp_path / "rows").open("w+") as rows:
        process = subprocess.Popen(
            [CGNET, "sockets", "-o", "json", "-i", "60"],
            stdout=rows, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        with process.stderr:
            assert "tracing" in process.stderr.readline()
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        rows.seek(0)
        assert json.loads(rows.read().splitlines()[-1])["type"] == "summary"


def test_a_signal_ends_a_listing_that_nobody_reads(netns: str) -> None:
    """The first listing fills the pipe, so that it never says that it traces."""
    with RemotePython(f"/run/netns/{netns}") as process:
        process.do("servers = [socket.create_server(('127.0.0.1', 0)) for _ in range(500)]")
        listing = subprocess.Popen(
            [CGNET, "sockets", "-o", "json", "-i", "60", "--netns", f"/run/netns/{netns}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert listing.stdout is not None
        assert listing.stderr is not None
        with listing.stdout as rows, listing.stderr as told:
            full = fcntl.fcntl(rows.fileno(), fcntl.F_GETPIPE_SZ)
            wait_until("full pipe", lambda: waiting(rows.fileno()) > full // 2)
            os.kill(listing.pid, signal.SIGTERM)
            assert listing.wait(PATIENCE_S) in (0, 1)
            assert "Traceback" not in told.read()


def waiting(fd: int) -> int:
    """Return the number of bytes in a pipe."""
    count = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


def test_help_is_there_without_rights() -> None:
    assert cgnet("sockets", "--help").returncode == 0
