# SPDX-License-Identifier: BSD-2-Clause
"""What the command lines of connlat, rtt and life ask for, as the run is told."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cgnet.cli import _run
from cgnet.commands import COMMANDS
from cgnet.counting.counts import Counting
from cgnet.counting.histograms import MICROSECONDS, linear
from cgnet.counting.keys import Key
from cgnet.kernel._libbpf import lib
from cgnet.kernel.btf import variables
from cgnet.kernel.constant_folding import SECTION
from cgnet.kernel.variants import HOOK, LIVING
from cgnet.loader import Object
from cgnet.records._layouts import CloseCause, ClosedBy, Role
from cgnet.run.launch import object_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.run.command import Command, Options

BOTH = {Role.ROLE_CLIENT, Role.ROLE_SERVER}
MEASURING = ("connlat", "rtt", "life")


class Asked(NamedTuple):
    """What a run was made with."""

    command: Command
    options: Options


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """Run a command line up to where its run would begin."""
    made: list[Asked] = []

    class Session:
        def __init__(self, command: Command, options: Options) -> None:
            made.append(Asked(command, options))

        def run(self) -> int:
            return 0

    def run(line: str) -> Asked:
        name, *arguments = line.split()
        monkeypatch.setattr(importlib.import_module(COMMANDS[name].module), "Session", Session)
        assert _run([name, *arguments]) == 0
        return made.pop()

    return run


@pytest.mark.parametrize("name", MEASURING)
def test_without_options_nothing_is_left_out(asked: Callable[..., Asked], name: str) -> None:
    found = asked(name)
    assert found.command.name == name
    (config,) = found.command.config([])
    assert not any(config.pack())


@pytest.mark.parametrize("name", ["connect", *MEASURING, "drop", "trace"])
def test_each_constant_of_an_object_is_set_by_its_subject(
    asked: Callable[..., Asked], name: str
) -> None:
    """Filters, counting and, where there are any, peers set theirs for every command."""
    command = asked(name).command
    told = {each.layout.name for each in command.config([])}
    for hook in HOOK.variants:
        with Object(object_path(command.object, hook)) as obj:
            found = variables(lib.bpf_object__btf(obj.handle), SECTION)
        own = found.keys() - {"peer_config"}
        assert own == told | {"owner_config", "filter_config", "count_config"}


@pytest.mark.parametrize(
    ("line", "measures"),
    [
        ("connlat --min-ms 100", {"min_ns": 100_000_000}),
        ("connlat --min-ms 0.5", {"min_ns": 500_000}),
        ("connlat --min-us 500", {"min_ns": 500_000}),
        ("connlat --min-us 0.001", {"min_ns": 1}),
        ("connlat --min-us 1e12", {"min_ns": 10**15}),
        ("rtt --slower 20ms", {"min_ns": 20_000_000}),
        ("rtt --no-handshake", {"no_handshakes": 1}),
        ("rtt --srtt", {"smoothed": 1}),
        ("life --min-duration 10s", {"min_ns": 10**10}),
        ("life --min-duration 10", {"min_ns": 10**10}),
        ("life --min-duration 5m", {"min_ns": 300 * 10**9}),
        ("life --min-bytes 1000000", {"min_bytes": 1_000_000}),
        ("life --min-bytes 9223372036854775807", {"min_bytes": 2**63 - 1}),
        ("life --closed-by kernel", {"by_closed": 1 << ClosedBy.CLOSED_BY_KERNEL}),
        ("life --closed-by local --closed-by peer", {"by_closed": 0b110}),
        ("life --close-cause rst", {"by_cause": 1 << CloseCause.CLOSE_RST}),
        ("life --close-cause timeout --close-cause abort", {"by_cause": 0b11000}),
    ],
)
@pytest.mark.usefixtures("mounted")
def test_what_is_left_out_is_told_the_programs(
    asked: Callable[..., Asked], line: str, measures: dict[str, int]
) -> None:
    name = line.split(maxsplit=1)[0]
    (plain,), (found,) = (asked(each).command.config([]) for each in (name, line))
    assert found == plain._replace(**measures)  # type: ignore[attr-defined] # of any command


@pytest.mark.parametrize(
    ("line", "counting"),
    [
        ("connlat", None),
        ("connlat --hist", Counting([], MICROSECONDS)),
        (
            "connlat --hist --by container,daddr",
            Counting([Key("container"), Key("daddr")], MICROSECONDS),
        ),
        ("connlat --hist --by result", Counting([Key("result")], MICROSECONDS)),
        ("connlat --hist --linear 0,1000,50", Counting([], linear("0,1000,50"))),
        ("connlat -i 1", Counting([], MICROSECONDS)),
        ("connlat -i 1m --by dport", Counting([Key("dport")], MICROSECONDS)),
        ("rtt", Counting([], MICROSECONDS)),
        ("rtt --by daddr/24", Counting([Key("daddr", 24)], MICROSECONDS)),
        ("rtt --linear 10,20,1", Counting([], linear("10,20,1"))),
        ("rtt --by selected --cgroup /", Counting([Key("selected")], MICROSECONDS)),
        ("rtt --slower 1ms", None),
        ("life", None),
        ("life -i 1", None),
    ],
)
def test_what_is_made_into_histograms(
    asked: Callable[..., Asked], line: str, counting: Counting | None
) -> None:
    options = asked(line).options
    assert options.counting == counting
    if counting:
        assert counting.config().histogram


@pytest.mark.parametrize(
    ("line", "results"),
    [
        ("connlat --hist", ("ok",)),
        ("connlat -i 5", ("ok",)),
        ("connlat --hist --result ETIMEDOUT", ("ETIMEDOUT",)),
        ("connlat --hist --result !ok", ("!ok",)),
        ("connlat", ()),
        ("connlat --min-ms 1", ()),
    ],
)
def test_a_histogram_of_connlat_has_successes_unless_told_otherwise(
    asked: Callable[..., Asked], line: str, results: tuple[str, ...]
) -> None:
    assert asked(line).options.selection.result == results


@pytest.mark.parametrize(
    "line", ["connlat", "connlat --all", "connlat --inbound", "connlat --hist"]
)
def test_what_fails_before_a_syn_leaves_takes_no_time_and_is_not_looked_for(
    asked: Callable[..., Asked], line: str
) -> None:
    assert "sync_errors" not in {job.name for job in asked(line).command.needed()}


@pytest.mark.parametrize(
    ("line", "roles"),
    [
        ("connlat", {Role.ROLE_CLIENT}),
        ("connlat --inbound", {Role.ROLE_SERVER}),
        *((name, BOTH) for name in ("rtt", "life")),
        *((f"{name} --role server", {Role.ROLE_SERVER}) for name in ("rtt", "life", "connlat")),
        *((f"{name} --role !server", {Role.ROLE_CLIENT}) for name in ("rtt", "life")),
    ],
)
def test_whose_connections_are_shown(
    asked: Callable[..., Asked], line: str, roles: set[Role]
) -> None:
    assert asked(line).options.selection.roles == roles


def test_with_an_interval_life_needs_what_tells_the_living(asked: Callable[..., Asked]) -> None:
    assert LIVING not in asked("life").command.needed()
    assert LIVING in asked("life -i 5").command.needed()


def test_milliseconds_are_for_drawings(asked: Callable[..., Asked]) -> None:
    assert asked("rtt --ms").command.draws_milliseconds
    assert not asked("rtt").command.draws_milliseconds


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("connlat --min-ms 1 --min-us 1", "--min-ms and --min-us: give one of them"),
        ("connlat --min-ms -1", "--min-ms"),
        ("connlat --min-ms nan", "nan is not a number"),
        ("connlat --min-us 1e13", "--min-us"),
        ("connlat --by pid", "--by: goes with --hist"),
        ("connlat --linear 0,10,1", "--linear: goes with --hist"),
        ("connlat --hist --linear 0,10", "--linear '0,10'"),
        ("connlat --hist --by reason", "--by 'reason': nothing to count by"),
        ("connlat --count", "--count"),
        ("rtt --by result", "--by 'result': nothing to count by; one of: container"),
        ("rtt --by selected", "--by selected: counts by the --cgroup given"),
        ("rtt --slower 20", "'20' is no time"),
        ("rtt --slower 1ms --by pid", "--by: goes with histograms, not with --slower"),
        ("rtt --slower 1ms -i 1", "--interval: goes with histograms"),
        ("rtt --slower 1ms --linear 0,10,1", "--linear: goes with histograms"),
        ("rtt --inbound", "--inbound"),
        ("life --by pid", "--by"),
        ("life --min-bytes -1", "--min-bytes"),
        ("life --min-bytes 9223372036854775808", "--min-bytes"),
        ("life --min-duration 1d", "'1d' is no time"),
        ("life --closed-by me", "local, peer, kernel"),
        ("life --close-cause x", "fin, rst, timeout, abort"),
        ("life -i 0", "--interval"),
    ],
)
def test_what_does_not_fit_is_quoted(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(line.split()) == 2
    told = capsys.readouterr()
    assert (told.out, said in told.err) == ("", True), told.err
