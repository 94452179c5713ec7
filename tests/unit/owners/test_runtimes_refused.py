# SPDX-License-Identifier: BSD-2-Clause
"""What strangers put there is not believed, and not opened."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runtime_state import (
    ID,
    OTHER,
    POD_ID,
    STORAGE,
    TASKS,
    USERDATA,
    docker,
    podman,
    podman_bolt,
    process,
    write,
)

from cgnet.owners.cgroup_paths import Facts
from cgnet.owners.runtimes import Runtimes, files
from cgnet.owners.runtimes.files import folder, read, read_object

if TYPE_CHECKING:
    from pathlib import Path

PATH = f"/docker/{ID}"
STATE = f"var/lib/docker/containers/{ID}/config.v2.json"


@pytest.fixture(autouse=True)
def own_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "OWNER", os.geteuid())
    monkeypatch.setattr(files, "_complaints", set())


def facts(root: Path, path: str = PATH) -> Facts:
    return Runtimes(root, root / "proc").find(path).facts


def test_an_id_that_no_runtime_knows_is_no_container(tmp_path: Path) -> None:
    docker(tmp_path, OTHER)
    assert facts(tmp_path) == Facts()


def test_a_containers_id_in_another_place_is_no_container(tmp_path: Path) -> None:
    docker(tmp_path)
    process(tmp_path / "proc", 4242, f"/docker/{ID}")
    delegated = "/user.slice/user-1000.slice/user@1000.service"
    assert facts(tmp_path, f"{delegated}/docker-{ID}.scope") == Facts(unit="user@1000.service")
    assert facts(tmp_path, f"{delegated}/docker/{ID}") == Facts(unit="user@1000.service")
    assert facts(tmp_path, f"/docker/{OTHER}/{ID}") == Facts()


def test_what_a_container_makes_below_itself_is_that_container(tmp_path: Path) -> None:
    docker(tmp_path)
    docker(tmp_path, OTHER)
    known = Runtimes(tmp_path, tmp_path / "proc").find(f"{PATH}/docker/{OTHER}")
    assert known.facts.container_id == ID
    assert known.ids == (ID,)


def test_a_state_that_names_another_container_is_refused(tmp_path: Path) -> None:
    docker(tmp_path)
    shutil.copytree(
        tmp_path / f"var/lib/docker/containers/{ID}",
        tmp_path / f"var/lib/docker/containers/{OTHER}",
    )
    assert facts(tmp_path, f"/docker/{OTHER}") == Facts()


def link_file(root: Path) -> None:
    (root / STATE).rename(root / "elsewhere")
    (root / STATE).symlink_to(root / "elsewhere")


def link_folder(root: Path) -> None:
    (root / "var/lib/docker").rename(root / "elsewhere")
    (root / "var/lib/docker").symlink_to(root / "elsewhere")


def fifo(root: Path) -> None:
    (root / STATE).unlink()
    os.mkfifo(root / STATE)


def directory(root: Path) -> None:
    (root / STATE).unlink()
    (root / STATE).mkdir()


def huge(root: Path) -> None:
    os.truncate(root / STATE, files.MAX_BYTES + 1)


@pytest.mark.parametrize("change", [link_file, link_folder, fifo, directory, huge])
def test_only_regular_files_of_a_sane_size_are_read_and_no_link(
    tmp_path: Path, change: object
) -> None:
    docker(tmp_path)
    assert facts(tmp_path).container == "web"
    assert callable(change)
    change(tmp_path)
    assert facts(tmp_path).container is None


def test_what_belongs_to_a_user_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker(tmp_path)
    monkeypatch.setattr(files, "OWNER", os.geteuid() + 1)
    assert facts(tmp_path) == Facts()
    assert folder(tmp_path, TASKS) == []


JUNK = [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"ID": 5}', b"[" * 100_000, b'{"Config": []}',
    b'{"a": ' * 50_000,
]  # fmt: skip


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_broken_state_is_no_state(tmp_path: Path, junk: bytes) -> None:
    docker(tmp_path)
    write(tmp_path, STATE, junk)
    assert facts(tmp_path).container is None


def test_values_of_a_wrong_type_are_left_out(tmp_path: Path) -> None:
    docker(tmp_path, Image=7, Labels={"a": 1, "b": "c"})
    found = facts(tmp_path)
    assert (found.container, found.image, found.labels) == ("web", None, {"b": "c"})


@pytest.mark.parametrize("root", ["a\0b", "../..", "/nowhere", "\ud800"])
def test_settings_that_lead_nowhere_do_no_harm(tmp_path: Path, root: str) -> None:
    docker(tmp_path)
    write(tmp_path, "etc/docker/daemon.json", {"data-root": root})
    assert facts(tmp_path) == Facts(None, ID, None, "docker")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(), st.sampled_from(["/default/", "/k8s.io/", "/docker/", "/"]))
def test_no_path_breaks_a_look_up(tmp_path: Path, text: str, above: str) -> None:
    podman(tmp_path)
    known = Runtimes(tmp_path, tmp_path / "proc").find(above + text)
    assert known.facts.container is None


def test_a_damaged_database_of_podman_costs_the_names(tmp_path: Path) -> None:
    podman(tmp_path)
    podman_bolt(tmp_path)
    database = tmp_path / "var/lib/containers/storage/libpod/bolt_state.db"
    database.write_bytes(database.read_bytes()[:9000])
    found = facts(tmp_path, f"/libpod_parent/libpod-{ID}")
    assert (found.container, found.container_id) == (None, ID)


PODMANS = f"/libpod_parent/libpod-{ID}"
LIST = f"{STORAGE}/overlay-containers/containers.json"
SQLITE = f"{STORAGE}/db.sql"
BOLT = f"{STORAGE}/libpod/bolt_state.db"
ODD = [
    (SQLITE, b"", "is no database of podman's"),
    (SQLITE, b"x" * 5000, "is no database of podman's (file is not a database)"),
    (BOLT, b"", "no bbolt database"),
    (BOLT, bytes(3_000_000), "no bbolt database"),
    (LIST, b"5", "holds no list of containers"),
    (LIST, b"", "holds no list of containers"),
    (LIST, b"[" * 100_000, "holds no list of containers"),
    (LIST, b"9" * 5000, "holds no list of containers"),
    (LIST, json.dumps([5, None, {"id": ID, "metadata": {"a": 1}, "names": [7]}]).encode(), None),
    (LIST, json.dumps([{"id": ID, "metadata": 7, "names": "a"}]).encode(), None),
    (USERDATA.format(POD_ID), b"{", "holds no JSON object"),
]


@pytest.mark.parametrize(("path", "content", "why"), ODD, ids=range(len(ODD)))
def test_what_is_odd_in_podmans_state_is_said_and_others_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str, content: bytes, why: str | None
) -> None:
    podman(tmp_path)
    docker(tmp_path, OTHER)
    write(tmp_path, path, content)
    made = Runtimes(tmp_path, tmp_path / "proc")
    assert made.find(PODMANS).facts.container is None
    made.find(f"/libpod_parent/libpod-{POD_ID}")
    assert made.find(f"/docker/{OTHER}").facts.container == "web"
    assert [record.getMessage() for record in caplog.records] == (
        [f"/{path}: {why}; what only this file tells of containers may be missing"] if why else []
    )


@pytest.mark.parametrize("kind", ["fifo", "folder", "long"])
def test_what_is_no_file_of_a_sensible_size_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    podman(tmp_path)
    path = tmp_path / USERDATA.format(ID)
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(5 << 30)
    assert Runtimes(tmp_path, tmp_path / "proc").find(PODMANS).facts == Facts()
    (said,) = {record.getMessage() for record in caplog.records}
    assert "config.json: " in said
    assert ("has 5368709120 bytes" if kind == "long" else "is no regular file") in said


def test_complaints_have_an_end(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(100):
        files.complain(f"/{number % 20}", "odd")
    assert len(caplog.records) == files.MAX_COMPLAINTS


def test_dots_do_not_leave_the_root(tmp_path: Path) -> None:
    write(tmp_path, "inside", {"a": 1})
    assert read_object(tmp_path, "../../inside") == {"a": 1}
    with pytest.raises(OSError, match="has 8 bytes"):
        read(tmp_path, "inside", 4)
