# SPDX-License-Identifier: BSD-2-Clause
"""`cgnet containers` on made-up hosts, and its text."""

from __future__ import annotations

import csv
import io
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from runtime_state import ID, OTHER, POD_ID, docker, podman, podman_bolt, process

from cgnet.cli import _run
from cgnet.commands import containers
from cgnet.owners import runtimes
from cgnet.owners.cgroups import Hierarchy
from cgnet.owners.runtimes import files, listing
from cgnet.render.listing import table_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EVIL = "\x1b[2J\u202eweb"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a host of folders; its processes by the paths of their cgroups."""
    hierarchy = Hierarchy(5, "memory", ("memory",), tmp_path / "cgroup", "/")
    hierarchy.mount.mkdir()
    monkeypatch.setattr(files, "OWNER", os.geteuid())
    monkeypatch.setattr(containers, "hierarchies", lambda: [hierarchy])
    monkeypatch.setattr(containers, "PROC", tmp_path / "proc")
    made = runtimes.Runtimes(tmp_path, tmp_path / "proc")
    monkeypatch.setattr(containers, "Runtimes", lambda **_: made)
    monkeypatch.setattr(listing, "cgroup_id", lambda _path: 2**60)

    def make(**processes: str) -> None:
        for number, path in processes.items():
            pid = int(number.removeprefix("p"))
            group = hierarchy.mount / path.lstrip("/")
            group.mkdir(parents=True, exist_ok=True)
            (group / "cgroup.procs").write_text(f"{pid}\n")
            process(tmp_path / "proc", pid, path)

    return make


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert _run(["containers", "-o", "json", *arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_field_is_there(
    tmp_path: Path, host: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    docker(tmp_path)
    host(p4242=f"/docker/{ID}", p7="/system.slice/nginx.service", p8="/docker")
    (row,) = rows(capsys)
    assert {key: row[key] for key in row if key not in {"time", "ts_ns"}} == {
        "schema": 2, "type": "container", "container": "web", "container_id": ID,
        "image": "nginx:1", "runtime": "docker", "pod": None, "pod_namespace": None,
        "pod_uid": None, "qos": None, "sandbox": False, "unit": None, "labels": {"app": "shop"},
        "hierarchy": "memory", "cgroup": f"/docker/{ID}", "cgroup_id": str(2**60), "netns": None,
        "pid": 4242, "found": "state",
    }  # fmt: skip
    assert row["time"].endswith("Z")


def test_sandboxes_and_unconfirmed_ones_are_shown_on_demand(
    tmp_path: Path, host: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    infra = f"/libpod_parent/{POD_ID}/libpod-{ID}"
    podman(tmp_path, cgroup=infra)
    podman_bolt(tmp_path, pause=True)
    fake = f"/user.slice/user-1000.slice/session-2.scope/docker-{ID}.scope"
    host(p9=f"{infra}/container", p10=fake, p11=f"/libpod_parent/{POD_ID}/conmon")
    assert rows(capsys) == []
    shown = {row["cgroup"]: row for row in rows(capsys, "--all")}
    assert set(shown) == {infra, fake}
    assert (shown[infra]["sandbox"], shown[infra]["pod"], shown[infra]["pid"]) == (True, "shop", 9)
    unknown = ("container", "container_id", "runtime", "sandbox", "found")
    assert {shown[fake][field] for field in unknown} == {None}
    assert (shown[fake]["unit"], shown[fake]["pid"]) == ("session-2.scope", 10)


def test_a_container_without_processes_does_not_run(
    tmp_path: Path, host: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    docker(tmp_path)
    host(p4=f"/docker/{OTHER}")
    (tmp_path / f"cgroup/docker/{ID}").mkdir()
    assert rows(capsys) == []


def test_a_container_in_a_container_has_a_row_of_its_own(
    tmp_path: Path, host: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    docker(tmp_path)
    docker(tmp_path, OTHER, cgroup=f"/docker/{ID}/docker/{OTHER}")
    host(p4242=f"/docker/{ID}", p5=f"/docker/{ID}/docker/{OTHER}")
    assert [row["container_id"] for row in rows(capsys)] == [ID, OTHER]


@pytest.mark.parametrize("output", ["table", "wide", "csv"])
def test_what_strangers_chose_is_escaped(
    tmp_path: Path, host: Callable[..., None], capsys: pytest.CaptureFixture[str], output: str
) -> None:
    docker(tmp_path, Image=EVIL, Labels={"a": "[red]x[/red]", "b": EVIL})
    host(p4242=f"/docker/{ID}")
    assert _run(["containers", "-o", output]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\x1b[2J\\u202eweb" in shown


def test_csv_has_the_fields_of_json(
    tmp_path: Path, host: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    docker(tmp_path, Image="=1+1")
    host(p4242=f"/docker/{ID}")
    (row,) = rows(capsys)
    assert _run(["containers", "-o", "csv"]) == 0
    (cells,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert list(cells) == list(row)
    assert (cells["image"], cells["pod"], cells["pid"]) == ("'=1+1", "", "4242")


def test_no_header_is_no_header(
    tmp_path: Path, host: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    docker(tmp_path)
    host(p4242=f"/docker/{ID}")
    for output in ("table", "csv"):
        assert _run(["containers", "--no-header", "-o", output]) == 0
        assert "web" in capsys.readouterr().out.splitlines()[0]


def test_a_wrong_hierarchy_is_wrong_usage(
    host: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    host()
    assert _run(["containers", "--hierarchy", "nosuch"]) == 2
    assert "one of: memory" in capsys.readouterr().err


def test_a_tables_columns_are_as_wide_as_what_is_in_them() -> None:
    columns: dict[str, Callable[[dict[str, Any]], Any]] = {
        "container": lambda row: row["name"],
        "pid": lambda row: row["pid"],
    }
    rows = [{"name": "日本", "pid": 1}, {"name": None, "pid": 12}]
    shown = table_text(rows, columns, header=True).splitlines()
    assert shown == ["CONTAINER  PID", "日本         1", "-           12"]
    assert table_text([], columns, header=True) == "CONTAINER  PID\n"
