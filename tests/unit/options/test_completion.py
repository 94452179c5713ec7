# SPDX-License-Identifier: BSD-2-Clause
"""What shells complete values with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgnet.cli import cli
from cgnet.options import completion
from cgnet.owners.cgroups import Hierarchy

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Cgnet = Callable[..., subprocess.CompletedProcess[str]]

ROW = {
    "found": "state",
    "sandbox": False,
    "image": "nginx",
    "runtime": "docker",
    "container_id": "ab" * 32,
}
ROWS = [
    ROW | {"container": "web", "pod": "web-0", "pod_namespace": "shop"},
    ROW | {"container": "worker", "pod": None, "pod_namespace": None},
    ROW | {"container": "$(reboot)", "pod": "a;b", "pod_namespace": "x y"},
]


def values(name: str, option: str, incomplete: str) -> list[str]:
    """Return what an option's value is completed with."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    parameter = next(each for each in command.params if option in each.opts)
    context = click.Context(command, info_name=name, resilient_parsing=True)
    return [item.value for item in parameter.shell_complete(context, incomplete)]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host with some containers and cgroups."""
    monkeypatch.setattr(completion, "_containers", lambda _ctx: ROWS)
    for path in ("kubepods/pod1", "kubepods/pod2", "system.slice/nginx.service", "a b"):
        (tmp_path / path).mkdir(parents=True)
    where = Hierarchy(7, "memory", ("memory",), tmp_path, "/")
    monkeypatch.setattr(completion, "_hierarchy", lambda _ctx: where)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "option", "begun", "expected"),
    [
        ("connect", "--role", "", ["client", "server"]),
        ("connect", "--role", "client,", ["client,server"]),
        ("connect", "--result", "econnref", ["ECONNREFUSED"]),
        ("connect", "--result", "!ok", ["!ok"]),
        ("connect", "--result", "ok,ab", ["ok,aborted"]),
        ("connect", "--by", "con", ["container"]),
        ("connect", "--by", "container,res", ["container,result"]),
        ("rtt", "--by", "res", []),
        ("drop", "--by", "sta", ["stack"]),
        ("drop", "--reason-class", "!fire", ["!firewall"]),
        ("drop", "--state", "LIS", ["LISTEN"]),
        ("drop", "--dev", "lo", ["lo"]),
        ("trace", "--stage", "app_r", ["app_read>"]),
        ("connect", "--fields", "time,lat", ["time,latency_us"]),
        ("life", "--fields", "dur", ["duration_us"]),
        ("rtt", "--fields", "rtt", ["rtt_us"]),
        ("retrans", "--by", "container,cau", ["container,cause"]),
        ("retrans", "--cause", "!fa", ["!fast"]),
        ("retrans", "--cause", "syn,ta", ["syn,tail_loss_probe"]),
        ("drop", "--fields", "reason_", ["reason_class"]),
        ("trace", "--fields", "stag", ["stages"]),
        ("connect", "--uid", "roo", ["root"]),
        ("connect", "-o", "j", ["json"]),
        ("containers", "-o", "w", ["wide"]),
    ],
)
def test_a_value_is_completed(name: str, option: str, begun: str, expected: list[str]) -> None:
    assert values(name, option, begun) == expected


@pytest.mark.usefixtures("host")
def test_names_of_owners_are_completed() -> None:
    assert values("connect", "--container", "w") == ["web", "worker"]
    assert values("connect", "--container", "!we") == ["!web"]
    assert values("connect", "--pod", "") == ["shop/web-0", "web-0"]
    assert values("connect", "--pod-namespace", "") == ["shop"]
    assert values("connect", "--unit", "ng") == ["nginx.service"]
    assert str(os.getpid()) in values("connect", "--pid", str(os.getpid())[:1])


@pytest.mark.usefixtures("host")
def test_cgroups_are_completed_level_by_level() -> None:
    assert values("connect", "--cgroup", "") == ["/kubepods", "/system.slice"]
    assert values("connect", "--cgroup", "/kube") == [
        "/kubepods", "/kubepods/pod1", "/kubepods/pod2",
    ]  # fmt: skip
    assert values("connect", "--cgroup", "!/kubepods/pod1") == ["!/kubepods/pod1"]
    assert values("connect", "--cgroup", "/nosuch/x") == []


@given(st.text())
def test_only_names_that_mean_nothing_to_a_shell_are_offered(name: str) -> None:
    """Root runs the line that they are put into."""
    items = completion._items([name], "", "")
    assert not items or not set(name) & set(" \t\n'\"\\$`;&|<()*?[]{}~#!^")


def test_what_cant_be_read_completes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_ctx: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(completion, "_hierarchy", fail)
    for option in ("--container", "--pod", "--unit", "--cgroup"):
        assert values("connect", option, "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_list_and_a_file_are_completed_in_each_shell(cgnet: Cgnet, shell: str) -> None:
    def complete(line: str) -> str:
        words = line.split()
        at = words[-1] if shell == "fish" else str(len(words) - 1)
        done = cgnet(_CGNET_COMPLETE=f"{shell}_complete", COMP_WORDS=line, COMP_CWORD=at)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    separator = "\n" if shell == "zsh" else ","
    assert f"plain{separator}container,result" in complete("cgnet connect --by container,res")
    assert complete("cgnet doctor --btf /x").startswith(f"file{separator}/x")


def test_fish_takes_what_stands_behind_a_comma(cgnet: Cgnet) -> None:
    done = cgnet(_CGNET_COMPLETE="fish_source")
    assert 'string split -m 1 ","' in done.stdout
