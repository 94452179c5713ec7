# SPDX-License-Identifier: BSD-2-Clause
"""What a command line asks for, as the run is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cgnet.cli import _run
from cgnet.commands.connect import command as connect
from cgnet.counting.counts import Counting
from cgnet.counting.keys import Key
from cgnet.filters.selection import Selection
from cgnet.options.shared import collect
from cgnet.records._layouts import Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.run.command import Command, Options

    Asked = Callable[..., tuple[Options, list[Any]]]

CLIENT, SERVER = {Role.ROLE_CLIENT}, {Role.ROLE_SERVER}
BOTH = CLIENT | SERVER


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Return the options, and what may see early errors, of `cgnet connect` with arguments."""
    made: list[tuple[Options, list[Any]]] = []

    class Session:
        def __init__(self, command: Command, options: Options) -> None:
            made.append((options, command.needed()))

        def run(self) -> int:
            return 0

    def run(*arguments: str) -> tuple[Options, list[Any]]:
        assert _run(["connect", *arguments]) == 0
        return made.pop()

    monkeypatch.setattr(connect, "Session", Session)
    return run


def test_without_options_all_that_connect_are_shown(asked: Asked) -> None:
    options = asked()[0]
    assert options.selection == Selection()
    assert (options.counting, options.interval, options.max_rate) == (None, None, None)


@pytest.mark.parametrize(
    ("arguments", "roles"),
    [
        ([], CLIENT),
        (["--inbound"], SERVER),
        (["--all"], BOTH),
        (["--all", "--inbound"], BOTH),
        (["--role", "client"], CLIENT),
        (["--role", "server"], SERVER),
        (["--role", "client,server"], BOTH),
        (["--role", "client", "--role", "server"], BOTH),
        (["--role", "!client"], SERVER),
        (["--role", "!server"], CLIENT),
        (["--all", "--role", "!server"], CLIENT),
        (["--all", "--role", "server"], SERVER),
        (["--inbound", "--role", "server"], SERVER),
        (["--role", "client,server", "--role", "!client"], SERVER),
    ],
    ids=str,
)
def test_roles(asked: Asked, arguments: list[str], roles: set[Role]) -> None:
    assert asked(*arguments)[0].selection.roles == roles


@pytest.mark.parametrize(
    "arguments",
    [
        ["--inbound", "--role", "client"],
        ["--inbound", "--role", "!server"],
        ["--all", "--role", "!client,server"],
        ["--role", "client", "--role", "!client"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("asked")
def test_roles_that_leave_nothing_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(["connect", *arguments]) == 2
    assert "--role: with the other options no connection is left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "families"),
    [([], set()), (["-4"], {4}), (["-6"], {6}), (["-4", "-6"], {4, 6}), (["-4", "-4"], {4})],
    ids=str,
)
def test_families(asked: Asked, arguments: list[str], families: set[int]) -> None:
    assert asked(*arguments)[0].selection.families == families


@pytest.mark.parametrize(
    "name",
    sorted({*Selection._fields} - {"families", "roles", "hierarchy"}),
)
def test_an_option_that_selects_comes_any_number_of_times(asked: Asked, name: str) -> None:
    option = f"--{name.replace('_', '-')}"
    selection = asked(option, "a", option, "!b,c")[0].selection
    assert selection == Selection(**{name: ("a", "!b,c")})


def test_the_hierarchy_is_one(asked: Asked) -> None:
    assert asked("--hierarchy", "pids")[0].selection.hierarchy == "pids"


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["-c"], [Key("container"), Key("result")]),
        (["-c", "--by", "pid"], [Key("pid")]),
        (["-i", "1"], [Key("container"), Key("result")]),
        (["-i", "1", "--by", "pid"], [Key("pid")]),
        (
            ["--count", "--by", "pid,uid", "--by", "daddr/8"],
            [Key("pid"), Key("uid"), Key("daddr", 8)],
        ),
        (["-c", "--by", "selected", "--cgroup", "/x"], [Key("selected")]),
    ],
    ids=str,
)
def test_keys_of_counts(asked: Asked, arguments: list[str], keys: list[Key]) -> None:
    assert asked(*arguments)[0].counting == Counting(keys)


@pytest.mark.parametrize(
    ("text", "seconds"), [("2.5", 2.5), ("30", 30), ("30s", 30), ("5m", 300), ("1h", 3600)]
)
def test_an_interval_is_seconds_or_has_a_unit(asked: Asked, text: str, seconds: float) -> None:
    options = asked("-c", "-i", text, "--duration", text)[0]
    assert (options.interval, options.duration) == (seconds, seconds)


@pytest.mark.parametrize(
    ("arguments", "looked_for"), [([], True), (["--inbound"], False), (["--all"], True)]
)
def test_errors_before_a_syn_are_looked_for_where_somebody_connects(
    asked: Asked, arguments: list[str], *, looked_for: bool
) -> None:
    found = asked(*arguments)[1]
    assert ("sync_errors" in {job.name for job in found}) == looked_for


@pytest.mark.parametrize(("choice", "ways"), [
    ("auto", ["fexit", "kprobe", "none"]), ("on", ["fexit", "kprobe", "tracepoint"]), ("off", []),
])  # fmt: skip
def test_ways_to_see_errors_before_a_syn(asked: Asked, choice: str, ways: list[str]) -> None:
    jobs = asked("--sync-errors", choice)[1]
    assert [each.code for job in jobs if job.name == "sync_errors" for each in job.variants] == ways


def test_a_command_without_the_options_of_connections_shows_clients() -> None:
    """One that has nothing to count, either."""
    values = {name: () for name in Selection._fields if name not in {"roles", "result"}}
    values |= dict.fromkeys(("output", "fields", "no_header", "duration", "limit", "buffer"), None)
    values |= dict.fromkeys(("max_rate", "strict", "btf", "hook", "transport"), None)
    values |= dict.fromkeys(("ipv4", "ipv6"), None)
    options = collect(values)
    assert (options.selection.roles, options.counting, options.interval) == (CLIENT, None, None)
