# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet why``: findings on real traffic, on commands that it runs, and what it says without one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness import (
    CGNET,
    FORCED,
    HIERARCHY,
    PATIENCE_S,
    Row,
    listener,
    new_cgroup,
    run,
    tracing,
    unused_port,
    wait_until,
)

from cgnet.commands.why.child import own_cgroup
from cgnet.filters.selection import Filters
from cgnet.kernel.variants import HOOK, TYPED, all_work

if TYPE_CHECKING:
    from collections.abc import Iterator

HOOKS = [each.code for each in HOOK.variants if all_work(each.needs).ok]
REFUSED = "import socket, sys; sys.exit(socket.socket().connect_ex(('127.0.0.1', {port})) and 7)"
TALKS = """
import socket
with socket.create_connection(("127.0.0.1", {port})) as sock:
    for _ in range(20):
        sock.send(b"x" * 50)
        sock.recv(50)
"""
# Says "ready" once its queue of one is full and a third client waits.
FULL = """
import socket, sys, threading, time
server = socket.create_server(("127.0.0.1", 0), backlog=1)
port = server.getsockname()[1]
socks = [socket.socket() for _ in range(5)]
for sock in socks:
    sock.setblocking(False)
    sock.connect_ex(("127.0.0.1", port))
print(port, flush=True)
sys.stdin.read()
"""


def why(*arguments: str, output: str = "json") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(CGNET), "why", "-o", output, *FORCED, *arguments],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


def findings(done: subprocess.CompletedProcess[str]) -> tuple[list[Row], Row]:
    """Return the findings and the summary."""
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows, done.stderr
    assert [each["rank"] for each in rows[:-1]] == list(range(1, len(rows)))
    assert rows[-1]["type"] == "summary"
    return rows[:-1], rows[-1]


def left_behind() -> list[Path]:
    """Return the cgroups of commands that are still there."""
    own = own_cgroup(Filters().hierarchies[0])
    return [*own.glob("cgnet-why-*"), *own.parent.glob("cgnet-why-*")]


@contextmanager
def python(code: str, *cgroups: Path) -> Iterator[subprocess.Popen[str]]:
    """Run code in a process of its own, in these cgroups; it ends with its standard input."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; exec(sys.stdin.readline() and sys.argv[1])", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for each in cgroups:
            (each / "cgroup.procs").write_text(str(process.pid))
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("hook", HOOKS)
def test_a_command_that_is_refused(hook: str) -> None:
    port = unused_port()
    done = why("--hook", hook, "--", sys.executable, "-c", REFUSED.format(port=port))
    (found,), summary = findings(done)
    told = {
        name: found[name] for name in ("id", "severity", "confidence", "daddr", "dport", "count")
    }
    assert told == {
        "id": "no-listener", "severity": "error", "confidence": "certain", "daddr": "127.0.0.1",
        "dport": port, "count": 1,
    }  # fmt: skip
    assert "the command" in found["text"]
    assert (done.returncode, summary["exit_status"], summary["attempts"]) == (7, 7, 1)
    assert summary["objects"] == (1 if hook == TYPED else 4)
    assert left_behind() == []


@pytest.mark.parametrize("hook", HOOKS)
def test_a_command_that_is_well(hook: str) -> None:
    with listener() as port:
        code = TALKS.format(port=port)
        done = why("--hook", hook, "--", sys.executable, "-c", code)
    found, summary = findings(done)
    assert (found, done.returncode) == ([], 0)
    assert summary["verdict"].startswith("nothing wrong was seen: 1 attempts, 0 failed, no drops")
    assert left_behind() == []


def test_a_command_without_connections() -> None:
    found, summary = findings(why("--", "true"))
    assert found == []
    assert summary["verdict"].startswith("nothing seen to judge")


def test_the_exit_status_tells_of_findings_where_that_is_asked_for() -> None:
    code = REFUSED.format(port=unused_port())
    assert why("--fail-on", "error", "--", sys.executable, "-c", code).returncode == 10
    assert why("--fail-on", "info", "--", "true").returncode == 0
    assert why("--fail-on", "info", "--", "sh", "-c", "exit 3").returncode == 3


@pytest.mark.parametrize(
    ("words", "status", "ending"),
    [
        (["sh", "-c", "kill -9 $$"], 137, "was ended by SIGKILL"),
        (["sh", "-c", "exit 3"], 3, "exited with 3"),
        (["/no/such/program"], 127, "exited with 127"),
    ],
)
def test_how_a_command_ends_is_passed_on(words: list[str], status: int, ending: str) -> None:
    done = why("--", *words, output="table")
    assert done.returncode == status
    assert f"the command {ending}" in done.stderr
    assert left_behind() == []


def test_what_a_command_leaves_behind_is_ended() -> None:
    done = why("--", "sh", "-c", "sleep 1000 & echo $!", output="table")
    pid = int(done.stdout.split()[0])
    wait_until("the sleep's end", lambda: not Path(f"/proc/{pid}").exists())
    assert left_behind() == []


def test_a_commands_output_is_its_own() -> None:
    plain = why("--", "printf", "a\\nb", output="table")
    assert plain.stdout.startswith("a\nb")
    assert "a\nb" in why("--", "printf", "a\\nb").stderr


def test_a_command_runs_as_another_user() -> None:
    done = why("--user", "nobody", "--", "id", "-un", output="table")
    assert done.stdout.startswith("nobody\n")


def test_a_signal_is_passed_on() -> None:
    code = (
        "import signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); "
        "print(flush=True); signal.sigwait([signal.SIGUSR1]) and sys.exit(9)"
    )
    command = [str(CGNET), "why", "--", sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGUSR1)
        process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 9


@pytest.mark.parametrize("hook", HOOKS)
def test_a_queue_that_was_full_before(hook: str) -> None:
    with new_cgroup(HIERARCHY) as cgroup, python(FULL, cgroup) as server:
        assert server.stdout
        port = int(server.stdout.readline())
        done = why("--hook", hook, "--cgroup", str(cgroup), "--duration", "4")
    found, _ = findings(done)
    first = found[0]
    assert (first["id"], first["cgroup"], first["dport"]) == (
        "accept-queue-full", f"/{cgroup.name}", port,
    )  # fmt: skip
    assert (first["evidence"]["backlog"], first["evidence"]["queue"]) == (1, 2)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    with new_cgroup(HIERARCHY) as path:
        yield path


def test_ctrl_c_gives_what_was_seen_until_then(cgroup: Path) -> None:
    port = unused_port()
    with tracing("--cgroup", str(cgroup), "--duration", "1000", command="why") as tracer:
        made = run("connect", "127.0.0.1", port, 3, cgroups=(cgroup,))
        tracer.stop()
    (found,) = tracer.rows("finding")
    assert (found["id"], found["count"], found["cgroup"]) == (
        "no-listener",
        len(made),
        f"/{cgroup.name}",
    )


def test_others_are_not_named(cgroup: Path) -> None:
    with tracing("--cgroup", str(cgroup), "--duration", "1000", command="why") as tracer:
        subprocess.run([sys.executable, "-c", REFUSED.format(port=unused_port())], check=False)
        tracer.stop()
    assert tracer.rows("finding") == []


def test_owners_beyond_the_limit_are_summed_up_together(cgroup: Path) -> None:
    refusals = 3
    with tracing(
        "--cgroup", str(cgroup), "--duration", "1000", "--max-owners", "1", command="why"
    ) as tracer:
        for _ in range(3):
            with new_cgroup(cgroup) as inner:
                run("connect", "127.0.0.1", unused_port(), refusals, cgroups=(inner,))
        tracer.stop()
    (summary,) = tracer.rows("summary")
    if summary["objects"] > 1:  # side by side: nothing is summed up
        assert (summary["owners"], summary["other"]) == (None, None)
        return
    assert summary["owners"] == 1
    assert summary["other"]["failed"] in (
        2 * refusals,
        3 * refusals,
    )  # a drop's owner may be the one
    assert "more owners than 1: those beyond" in str(tracer)


@pytest.mark.parametrize(("peer", "found"), [("db", True), ("!db", False), ("other", False)])
def test_findings_on_connections_with_a_peer(peer: str, found: bool, tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text("127.0.0.0/8 db\n")
    code = REFUSED.format(port=unused_port())
    done = why("--peer", peer, "--names", str(names), "--", sys.executable, "-c", code)
    rows, summary = findings(done)
    assert [row["id"] for row in rows] == ["no-listener"] * found
    assert bool(summary["verdict"]) is not found


def test_a_name_that_nobody_has_is_said() -> None:
    done = why("--container", "nobody-has-this-name", "--duration", "0.5")
    assert "no container named nobody-has-this-name yet; waiting" in done.stderr
    assert findings(done)[1]["verdict"].startswith("nothing seen to judge")


def test_people_see_one_finding_in_a_few_lines() -> None:
    done = why("--", sys.executable, "-c", REFUSED.format(port=unused_port()), output="table")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1  ERROR  no-listener  the command  (certain; 1 connection failed")
    assert len(lines) <= 7
    assert [line for line in lines if line.startswith("   fix:")]


def test_a_user_without_a_command_is_a_usage_error() -> None:
    assert why("--user", "nobody").returncode == 2
