# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from records import ACCEPTED

from cgnet.cli import LazyGroup, _run, cli
from cgnet.counting.keys import (
    OF_CONNECTIONS,
    OF_DROPS,
    OF_ENDS,
    OF_LISTINGS,
    OF_RESENDS,
    OF_SOCKETS,
)

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Cgnet = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.usefixtures("no_tracing")

COMMANDS = LazyGroup().list_commands(click.Context(cli))
ABSENT_PID = 1 << 30  # above the kernel's greatest


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--pid", "x"], ["--pid", "'x'", "PID of a running process"]),
        (["--pid", "0"], ["--pid", "'0'", "PID of a running one"]),
        (["--pid", "-5"], ["--pid", "'-5'", "PID of a running process"]),
        (["--pid", "!4711x"], ["--pid", "'!4711x'", "PID of a running process"]),
        (["--pid", str(ABSENT_PID)], ["--pid", str(ABSENT_PID), "PID of a running one"]),
        (["--limit", "many"], ["--limit", "'many'", "integer"]),
        (["--limit", "0"], ["--limit", "0", "x>=1"]),
        (["--duration", "soon"], ["--duration", "'soon'", "float"]),
        (["--duration", "0"], ["--duration", "0", "x>0"]),
        (["--duration", "nan"], ["--duration", "nan"]),
        (["--fields", "pid,nosuch"], ["--fields", "'nosuch'", "schema, type, time"]),
        (["--fields", "pid,,comm"], ["--fields", "'pid,,comm'", "separated by commas"]),
        (["--fields", ""], ["--fields", "''", "separated by commas"]),
        (["--buffer", "4X"], ["--buffer", "'4X'", "K, M or G"]),
        (["--buffer", "1K"], ["--buffer", "'1K'", "4K to 1G"]),
        (["--buffer", "2G"], ["--buffer", "'2G'", "4K to 1G"]),
        (["--cgroup", "/no/such"], ["--cgroup", "'/no/such'", "as mounted", "(/…)"]),
        (["--cgroup", "relative"], ["--cgroup", "'relative'", "as mounted", "(/…)"]),
        (["--hierarchy", "nosuch"], ["--hierarchy", "'nosuch'", "one of:"]),
        (["--hierarchy", "name=x"], ["--hierarchy", "'name=x'", "a named hierarchy"]),
        (["--cgroup", "a*"], ["--cgroup", "'a*'", "begin a pattern with /"]),
        (["--comm", ""], ["--comm", "''", "as ps -o comm shows it"]),
        (["--uid", "!no such"], ["--uid", "'!no such'", "a name of this host"]),
        (["--netns", "/tmp"], ["--netns", "'/tmp'", "a PID, a path"]),
        *(([name, "x"], [name, "'x'", "10.0.0.0/8"]) for name in ("--saddr", "--daddr", "--addr")),
        *(([name, "x"], [name, "'x'", "0 to 65535"]) for name in ("--sport", "--dport", "--port")),
        (["--result", "fine"], ["--result", "'fine'", "ok, aborted or an errno's name"]),
        (["--role", "both"], ["--role", "'both'", "one of: client, server"]),
        (["--role", "!client,server"], ["--role", "no connection is left"]),
        (["-c", "--by", "x"], ["--by", "'x'", "one of: container"]),
        (["-c", "--by", "pid/2"], ["--by", "'pid/2'", "cgroup/2 or daddr/24"]),
        (["-c", "--by", "selected"], ["--by selected", "the --cgroup given"]),
        (["--by", "pid"], ["--by", "goes with --count"]),
        (["-i", "1x"], ["--interval", "'1x'", "as in 5m"]),
        (["-i", "0.05s"], ["--interval", "0.05", "x>=0.1"]),
        (["-c", "-i", "0"], ["--interval", "0", "x>=0.1"]),
        (["-c", "-i", "nan"], ["--interval", "nan"]),
        (
            ["-c", "--fields", "pid"],
            ["--fields", "'pid'", "container, pod, pod_namespace, cgroup, result, count"],
        ),
        (["--max-rate", "0"], ["--max-rate", "0", "x>=1"]),
        (["-o", "xml"], ["--output", "'xml'", "'table', 'wide', 'json', 'csv'"]),
        (["--btf", "/no/such"], ["--btf", "'/no/such'", "does not exist"]),
        (["--sync-errors", "maybe"], ["--sync-errors", "'maybe'", "'auto', 'on', 'off'"]),
        (["--nosuch"], ["--nosuch", "--help"]),
        (["surplus"], ["surplus", "--help"]),
        (["--pid"], ["--pid", "argument"]),
    ],
    ids="=".join,
)
def test_a_wrong_value_is_quoted_and_the_accepted_form_shown(
    arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status = _run(["connect", *arguments])
    said = capsys.readouterr()
    assert (status, said.out) == (2, ""), said.err
    assert [part for part in parts if part not in said.err] == [], said.err


@pytest.mark.parametrize("value", ["x", "nan", "9" * 5000])
@pytest.mark.parametrize("option", ["--pid", "--limit", "--interval", "--port"])
def test_a_wrong_number_gives_no_traceback(cgnet: Cgnet, option: str, value: str) -> None:
    done = cgnet("connect", option, value, "--fields", "nosuch")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--pid", str(os.getpid())],
        ["--pid", str(os.getpid()), "--pid", "1"],
        ["--cgroup", "/"],
        ["-o", "json", "--fields", "pid, comm,owner"],
        ["-o", "csv", "--no-header", "--limit", "5"],
        ["--duration", "0.5", "--buffer", "64k", "--strict"],
        ["--duration", "inf"],
        ["--sync-errors", "on"],
        ["--btf", "/proc/self/status"],
        ["--cgroup", "/nosuch*", "--cgroup", "!/**/x[ab]?"],
        ["--comm", "curl", "--uid", "root", "--netns", str(os.getpid())],
        ["--saddr", "10.0.0.0/8", "--daddr", "!fd00::/8", "--addr", "192.0.2.1"],
        ["--sport", "80", "--dport", "!1-1023", "--port", "80,443,8000-8999", "-4", "-6"],
        ["--result", "!ok", "--role", "server", "--max-rate", "100"],
        ["-c", "--by", "container,daddr/24", "--by", "result", "-i", "0.5"],
        ["-i", "1"],
        ["--duration", "1h", "-i", "5m", "--by", "result"],
        ["-c", "--by", "selected", "--cgroup", "/", "-o", "json", "--fields", "selected,count"],
    ],
)
def test_right_values_are_accepted(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(["connect", *arguments]) == 3
    assert capsys.readouterr().err == f"cgnet: {ACCEPTED}\n"


def test_a_threads_id_is_no_process(capsys: pytest.CaptureFixture[str]) -> None:
    """/proc/TID exists, but owners are told by process: the filter would never match."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert Path(f"/proc/{thread.native_id}").exists()
        status = _run(["connect", "--pid", str(thread.native_id)])
    finally:
        end.set()
        thread.join()
    assert (status, str(thread.native_id) in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_groups_help_lists_the_commands_and_an_example(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run([option]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert [name for name in COMMANDS if f"\n  {name} " not in said.out] == []
    assert 'eval "$(_CGNET_COMPLETE=bash_source cgnet)"' in said.out


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_a_commands_help_has_examples_of_itself(
    name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run([name, option]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.partition("Examples:")[2].count(f"cgnet {name}") >= 3


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_says_what_it_does(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = [each for each in command.params if isinstance(each, click.Option)]
    assert options
    assert [each.name for each in options if not each.help and not each.hidden] == []


@pytest.mark.parametrize(
    ("name", "usable"),
    [
        ("connect", OF_CONNECTIONS),
        ("connlat", OF_CONNECTIONS),
        ("rtt", OF_ENDS),
        ("drop", (*OF_SOCKETS, *OF_DROPS)),
        ("retrans", OF_RESENDS),
        ("sockets", OF_LISTINGS),
        ("trace", OF_SOCKETS),
    ],
)
def test_the_help_of_by_names_all_that_can_be_counted_by(
    name: str, usable: tuple[str, ...]
) -> None:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    (by,) = (each for each in found.params if "--by" in each.opts)
    assert isinstance(by, click.Option)
    told = str(by.help).partition(": ")[2].partition(". Default")[0].split(", ")
    assert {each.partition("/")[0].partition(" ")[0] for each in told} == set(usable)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_commands_help_name_real_options(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {opt for each in command.params for opt in each.opts} | {"-h", "--help"}
    lines = [line for line in (command.epilog or "").splitlines() if f"cgnet {name}" in line]
    # What comes after is another command's.
    lines = [line.partition(" | ")[0].partition(" -- ")[0] for line in lines]
    used = {word for line in lines for word in line.split() if word.startswith("-")}
    assert used
    assert used - known == set()


def test_without_a_command_the_help_is_shown_with_status_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _run([]) == 2
    assert "Commands:" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("conect", "connect"), ("rttt", "rtt"), ("connect --contaner x", "--container"),
        ("connect -o jsn", "json"), ("connect --result ECONREFUSED", "ECONNREFUSED"),
        ("connect --role cleint", "client"), ("connect -c --by contaner", "container"),
        ("connect --fields latency", "latency_us"),
        ("connect --uid rooot", "root"), ("drop --reason-class firewal", "firewall"),
        ("drop --state LISTN", "LISTEN"), ("trace --stage app_rad>1ms", "app_read"),
    ],
)  # fmt: skip
def test_what_was_meant_is_told(line: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(line.split()) == 2
    said = capsys.readouterr().err.casefold()
    assert near.casefold() in said.rpartition("did you mean")[2].partition("?")[0]


def test_an_unknown_command_is_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["nosuch"]) == 2
    assert "'nosuch'" in capsys.readouterr().err


def test_version_names_cgnet_and_libbpf(cgnet: Cgnet) -> None:
    from cgnet import __version__

    done = cgnet("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"cgnet {__version__} (libbpf v1.")
    assert done.stdout.endswith(")\n")


def test_there_is_a_completion_script_for_bash(cgnet: Cgnet) -> None:
    done = cgnet(_CGNET_COMPLETE="bash_source")
    assert done.returncode == 0
    assert "complete -o nosort -F _cgnet_completion cgnet" in done.stdout


def test_bash_completes_commands_and_options(cgnet: Cgnet) -> None:
    words = {"COMP_WORDS": "cgnet con", "COMP_CWORD": "1"}
    completed = cgnet(_CGNET_COMPLETE="bash_complete", **words).stdout
    assert completed == "plain,connect\nplain,connlat\nplain,containers\n"
    words = {"COMP_WORDS": "cgnet connect --cg", "COMP_CWORD": "2"}
    assert cgnet(_CGNET_COMPLETE="bash_complete", **words).stdout == "plain,--cgroup\n"
