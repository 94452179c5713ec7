# SPDX-License-Identifier: BSD-2-Clause
"""Answers are kept, come later, and nobody waits for them; daemons are asked with a time-out."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from runtime_state import (
    ID,
    OTHER,
    POD_ID,
    STORAGE,
    UID,
    containerd,
    containerd_labels,
    docker,
    podman,
    process,
)

from cgnet.owners import runtimes as runtimes_module
from cgnet.owners.cgroup_paths import Facts
from cgnet.owners.cgroups import Hierarchy
from cgnet.owners.runtimes import EXPECTED_S, Runtimes, files, sockets, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cgnet.owners.runtimes import Known

PATH = f"/docker/{ID}"
PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def own_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "OWNER", os.geteuid())
    monkeypatch.setattr(files, "_complaints", set())


@pytest.fixture
def runtimes(tmp_path: Path) -> Iterator[Runtimes]:
    made = Runtimes(tmp_path, tmp_path / "proc", timeout=2.0)
    yield made
    made.close()


def wait_for(known: Callable[[], Known], what: Callable[[Known], object]) -> Known:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if what(found := known()):
            return found
        time.sleep(0.005)
    raise AssertionError(known())


# -- the cache


def test_the_first_answer_comes_at_once_and_the_name_soon(
    tmp_path: Path, runtimes: Runtimes
) -> None:
    docker(tmp_path)
    first = runtimes.of(PATH)
    assert first.expected or first.is_final
    found = wait_for(lambda: runtimes.of(PATH), lambda known: known.is_final)
    assert (found.facts.container, found.expected) == ("web", False)


def test_state_that_is_written_later_is_found(tmp_path: Path, runtimes: Runtimes) -> None:
    known = runtimes.of(PATH)
    assert (known.facts, known.expected, known.is_final) == (Facts(), True, False)
    docker(tmp_path)
    wait_for(lambda: runtimes.of(PATH), lambda known: known.facts.container == "web")


def test_after_a_while_nothing_is_expected_and_nothing_settled(tmp_path: Path) -> None:
    now = [1000.0]
    made = Runtimes(tmp_path, clock=lambda: now[0])
    try:
        assert made.find(PATH).expected
        now[0] += EXPECTED_S
        known = made.find(PATH)
        assert (known.expected, known.is_final) == (False, False)
        docker(tmp_path)
        now[0] += runtimes_module.AGAIN_S
        wait_for(lambda: made.of(PATH), lambda known: known.facts.container == "web")
    finally:
        made.close()


def test_asking_never_waits_for_a_look_up(
    tmp_path: Path, runtimes: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(state, "look_up", lambda *_, **__: release.wait(PATIENCE_S) and None)
    docker(tmp_path)
    begin = time.monotonic()
    for number in range(1000):
        assert runtimes.of(f"/docker/{number:064x}").expected
    assert time.monotonic() - begin < PATIENCE_S / 2
    release.set()


def test_a_container_is_looked_for_once_for_all_that_is_below_it(
    tmp_path: Path, runtimes: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker(tmp_path)
    asked = []
    look_up = state.look_up

    def count(root: Path, name: str, *, in_pod: bool, cgroup: str) -> object:
        assert cgroup.endswith(name)
        asked.append(name)
        return look_up(root, name, in_pod=in_pod)

    monkeypatch.setattr(state, "look_up", count)
    for below in ("", "/a", "/a/b", "/init.scope"):
        assert runtimes.find(PATH + below).facts.container == "web"
    assert asked == [ID]


def test_what_is_no_container_is_settled_and_starts_no_thread(runtimes: Runtimes) -> None:
    before = threading.active_count()
    known = runtimes.of("/system.slice/nginx.service")
    assert (known.facts, known.is_final, known.expected) == (
        Facts(unit="nginx.service"), True, False,
    )  # fmt: skip
    assert threading.active_count() == before


def test_the_oldest_are_forgotten(runtimes: Runtimes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtimes, "LIMIT", 3)
    for number in range(10):
        runtimes.find(f"/docker/{number:064x}")
    assert len(runtimes._entries) == 3


def test_what_a_runtime_confirms_outlasts_any_number_that_none_does(
    tmp_path: Path, runtimes: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtimes, "LIMIT", 3)
    docker(tmp_path)
    assert runtimes.find(PATH).facts.container == "web"
    for number in range(10):
        runtimes.find(f"/docker/{number:064x}")
        runtimes.of(f"/system.slice/{number}.service")
    (tmp_path / "var/lib/docker/containers" / ID / "config.v2.json").unlink()
    assert runtimes.of(PATH).facts.container == "web"


def test_in_a_flood_of_others_a_container_is_found_in_time(
    tmp_path: Path, runtimes: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are looked at for what they have alone; all others cost no look."""
    looked = []
    look_up = state.look_up

    def count(root: Path, name: str, *, in_pod: bool, cgroup: str) -> object:
        assert cgroup.endswith(name)
        looked.append(name)
        return look_up(root, name, in_pod=in_pod)

    monkeypatch.setattr(state, "look_up", count)
    docker(tmp_path)
    for number in range(20_000):
        runtimes.of(f"/docker/{number:064x}")
        if number == 15_000:
            runtimes.of(PATH)
    begin = time.monotonic()
    found = wait_for(lambda: runtimes.of(PATH), lambda known: known.is_final)
    assert (found.facts.container, time.monotonic() - begin < EXPECTED_S) == ("web", True)
    assert set(looked) == {ID}
    assert len(runtimes._entries) <= Runtimes.LIMIT
    assert runtimes.news() == [PATH]
    assert runtimes.news() == []


def test_a_list_that_is_too_long_to_be_read_hides_nothing(
    tmp_path: Path, runtimes: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_NAMES", 3)
    monkeypatch.setattr(state, "MAX_NAMES", 3)
    docker(tmp_path)
    for number in range(9):
        docker(tmp_path, f"{number:064x}")
    wait_for(lambda: runtimes.of(PATH), lambda known: known.is_final)


def test_what_is_gone_is_not_looked_for_unless_a_record_has_it(
    tmp_path: Path, runtimes: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes_module, "FIRST_RETRY_S", 0.001)
    other = f"/docker/{OTHER}"
    runtimes.expect(PATH)
    runtimes.expect(other)
    runtimes.of(other)
    runtimes.gone(PATH)
    runtimes.gone(other)
    assert list(runtimes._entries) == [other]
    docker(tmp_path, OTHER)
    wait_for(lambda: runtimes.of(other), lambda known: known.is_final)


def test_a_look_up_that_fails_is_said_once_and_the_others_are_named(
    tmp_path: Path,
    runtimes: Runtimes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    look_up = state.look_up

    def fail(root: Path, name: str, *, in_pod: bool, cgroup: str) -> object:
        assert cgroup.endswith(name)
        if name != ID:
            raise MemoryError
        return look_up(root, name, in_pod=in_pod)

    monkeypatch.setattr(state, "look_up", fail)
    for name in (OTHER, POD_ID, ID):
        docker(tmp_path, name)
    for name in (OTHER, POD_ID):
        known = runtimes.of(f"/docker/{name}")
        entry = runtimes._entries[f"/docker/{name}"]
        wait_for(lambda known=known: known, lambda _, entry=entry: entry.tries)
    wait_for(lambda: runtimes.of(PATH), lambda known: known.facts.container == "web")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        f"what is known of container {OTHER[:12]} can't be read (MemoryError); others are looked up"
    ]


# -- paths that don't look like a container's


def corp(root: Path, name: str = "web", cgroup: str = "/corp/x", namespace: str = "corp") -> None:
    containerd(root, name, cgroup, namespace)


def test_a_container_is_found_by_the_path_that_its_state_has(
    tmp_path: Path, runtimes: Runtimes
) -> None:
    corp(tmp_path)
    for path in ("/corp/x", "/corp/x/below"):
        known = runtimes.find(path)
        assert known.facts == Facts("web", "web", None, "containerd")
    for path in ("/corp", "/corp/xy", "/corp/y"):
        assert runtimes.find(path).facts == Facts()


def test_it_is_found_as_it_starts_and_what_is_none_is_settled_soon(
    tmp_path: Path, runtimes: Runtimes
) -> None:
    corp(tmp_path, "other", "/corp/other")
    runtimes.learn(["/", "/corp", "/system.slice"])
    assert runtimes.of("/corp").is_final
    corp(tmp_path)
    for path in ("/corp/x", "/plain"):
        runtimes.expect(path)
        known = runtimes.of(path)
        assert known.expected or known.is_final
    found = wait_for(lambda: runtimes.of("/corp/x"), lambda known: known.is_final)
    assert found.facts.container == "web"
    found = wait_for(lambda: runtimes.of("/plain"), lambda known: known.is_final)
    assert found.facts == Facts()
    assert {"/corp/x", "/plain"} <= set(runtimes.news())
    assert runtimes._entries == {}


def test_a_cgroup_that_is_made_again_may_be_a_container(tmp_path: Path, runtimes: Runtimes) -> None:
    corp(tmp_path, "other", "/corp/other")
    runtimes.learn(["/corp/x"])
    assert runtimes.of("/corp/x").is_final
    corp(tmp_path)
    runtimes.gone("/corp/x")
    runtimes.expect("/corp/x")
    wait_for(lambda: runtimes.of("/corp/x"), lambda known: known.facts.container == "web")


def test_where_no_runtime_has_such_paths_nothing_is_looked_for(runtimes: Runtimes) -> None:
    assert runtimes.of("/corp/x").is_final
    assert runtimes._thread is None


def test_containers_of_one_name_are_told_apart_by_their_namespaces(
    tmp_path: Path, runtimes: Runtimes
) -> None:
    containerd_labels(tmp_path, "corp", web={"a": "corp"})
    for namespace in ("default", "corp", "lab"):
        corp(tmp_path, cgroup=f"/{namespace}/web", namespace=namespace)
    for namespace, labels in (("default", None), ("corp", {"a": "corp"}), ("lab", None)):
        facts = runtimes.find(f"/{namespace}/web").facts
        assert (facts.container, facts.labels) == ("web", labels)


# -- no state at all


@pytest.fixture
def by_owner(tmp_path: Path) -> Iterator[Runtimes]:
    """Looks at who owns the cgroups, too."""
    hierarchy = Hierarchy(5, "memory", ("memory",), tmp_path / "cgroup", "/")
    hierarchy.mount.mkdir()
    made = Runtimes(tmp_path, tmp_path / "proc", hierarchy=hierarchy)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("path", "runtime"),
    [
        (PATH, "docker"),
        (f"/system.slice/docker-{ID}.scope", "docker"),
        (f"/libpod_parent/libpod-{ID}", "podman"),
        (f"/kubepods/burstable/pod{UID}/{ID}", None),
        (f"/{ID}", "nobody"),
        (f"/libpod_parent/{ID}", "nobody"),
    ],
)
def test_without_state_a_path_that_only_root_can_make_is_a_container(
    tmp_path: Path, by_owner: Runtimes, path: str, runtime: str | None
) -> None:
    (tmp_path / "cgroup" / path.lstrip("/")).mkdir(parents=True)
    known = by_owner.find(path)
    if runtime == "nobody":
        assert known.facts == Facts()
        return
    assert known.facts == Facts(container_id=ID, runtime=runtime)
    assert (known.inside[0].source, known.ids) == ("path", (ID,))
    assert known.expected  # its state may come yet
    assert by_owner.find(f"{path}/below").facts == known.facts


def test_what_somebody_else_owns_is_none(
    tmp_path: Path, by_owner: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup" / PATH.lstrip("/")).mkdir(parents=True)
    monkeypatch.setattr(files, "OWNER", os.geteuid() + 1)
    assert by_owner.find(PATH).facts == Facts()


def test_one_whose_state_is_of_another_place_is_none(tmp_path: Path, by_owner: Runtimes) -> None:
    docker(tmp_path)
    path = f"/system.slice/docker-{ID}.scope"
    (tmp_path / "cgroup" / path.lstrip("/")).mkdir(parents=True)
    assert by_owner.find(path).facts == Facts()


def test_in_a_container_it_has_an_id_and_the_name_of_that_one(
    tmp_path: Path, by_owner: Runtimes
) -> None:
    docker(tmp_path)
    path = f"{PATH}/docker/{OTHER}"
    (tmp_path / "cgroup" / path.lstrip("/")).mkdir(parents=True)
    known = by_owner.find(path)
    assert (known.facts.container, known.ids) == ("web", (ID, OTHER))
    assert [each.source for each in known.inside] == ["state", "path"]
    assert by_owner.find(f"{PATH}/docker/{ID}").ids == (ID,)  # somebody's copy of its own id


def test_state_that_comes_later_names_it(tmp_path: Path, by_owner: Runtimes) -> None:
    (tmp_path / "cgroup" / PATH.lstrip("/")).mkdir(parents=True)
    by_owner.of(PATH)
    wait_for(lambda: by_owner.of(PATH), lambda known: known.facts.container_id)
    docker(tmp_path)
    wait_for(lambda: by_owner.of(PATH), lambda known: known.facts.container == "web")


def test_a_closed_one_answers_what_it_knows(tmp_path: Path) -> None:
    docker(tmp_path)
    made = Runtimes(tmp_path)
    made.find(PATH)
    made.close()
    assert made.of(PATH).facts.container == "web"
    made.of(f"/docker/{OTHER}")


def test_the_thread_ends_when_it_is_closed(runtimes: Runtimes) -> None:
    runtimes.of(PATH)
    thread = runtimes._thread
    assert thread
    runtimes.close()
    assert not thread.is_alive()


# -- the sockets


@contextmanager
def daemon(
    root: Path, path: str, answers: dict[str, object], status: str = "200 OK"
) -> Iterator[list[str]]:
    """A daemon that knows a few addresses; yields what it was asked for."""
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    asked: list[str] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    address = connection.recv(4096).split()[1].decode()
                    asked.append(address)
                    if address in answers:
                        raw = json.dumps(answers[address]).encode()
                        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(raw)}\r\n\r\n"
                        connection.sendall(head.encode() + raw)
                    elif answers:
                        connection.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
                    else:
                        time.sleep(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield asked
        server.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_S)


DOCKERS = {
    f"/containers/{ID}/json": {
        "Id": ID,
        "Name": "/web",
        "State": {"Pid": 4242},
        "Config": {"Image": "nginx:1", "Labels": {"app": "shop"}},
    }
}
PODMANS = {
    f"/v1.0.0/libpod/containers/{ID}/json": {
        "Id": ID,
        "Name": "db",
        "ImageName": "db:3",
        "Pod": POD_ID,
        "State": {"Pid": 9, "CgroupPath": f"/libpod_parent/libpod-{ID}"},
        "Config": {"Labels": {"tier": "back"}},
    },
    f"/v1.0.0/libpod/pods/{POD_ID}/json": {"Name": "shop"},
}


def test_docker_is_asked_where_its_files_do_not_tell(tmp_path: Path, runtimes: Runtimes) -> None:
    process(tmp_path / "proc", 4242, PATH)
    with daemon(tmp_path, sockets.DOCKER, DOCKERS):
        known = runtimes.find(PATH)
    assert known.facts == Facts("web", ID, "nginx:1", "docker", labels={"app": "shop"})
    assert known.inside[0].source == "socket"


def test_docker_cannot_confirm_a_container_in_another_place(
    tmp_path: Path, runtimes: Runtimes
) -> None:
    process(tmp_path / "proc", 4242, f"/system.slice/docker-{ID}.scope")
    with daemon(tmp_path, sockets.DOCKER, DOCKERS):
        assert runtimes.find(PATH).facts == Facts()


def test_docker_is_not_asked_where_its_files_tell(tmp_path: Path, runtimes: Runtimes) -> None:
    docker(tmp_path)
    with daemon(tmp_path, sockets.DOCKER, DOCKERS) as asked:
        assert runtimes.find(PATH).facts.container == "web"
    assert asked == []


def test_podman_is_asked_for_a_pods_name_too(tmp_path: Path, runtimes: Runtimes) -> None:
    with daemon(tmp_path, sockets.PODMAN, PODMANS):
        found = runtimes.find(f"/libpod_parent/libpod-{ID}").facts
    assert found == Facts("db", ID, "db:3", "podman", "shop", labels={"tier": "back"})


def test_podman_fills_what_its_files_lack(tmp_path: Path, runtimes: Runtimes) -> None:
    podman(tmp_path)
    assert not (tmp_path / STORAGE / "db.sql").exists()
    with daemon(tmp_path, sockets.PODMAN, PODMANS):
        known = runtimes.find(f"/libpod_parent/libpod-{ID}")
    assert (known.facts.container, known.facts.pod, known.inside[0].source) == (
        "db", "shop", "state",
    )  # fmt: skip


def test_a_daemon_that_does_not_answer_is_left_alone_for_a_while(
    tmp_path: Path, runtimes: Runtimes
) -> None:
    with daemon(tmp_path, sockets.DOCKER, {}) as asked:
        for name in (ID, OTHER, ID):
            assert runtimes.find(f"/docker/{name}").facts == Facts()
    assert len(asked) == 1


def test_a_daemon_is_asked_for_what_it_has_not_so_often_and_then_not_for_a_while(
    tmp_path: Path, runtimes: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "IN_VAIN_S", 1000.0)
    process(tmp_path / "proc", 4242, PATH)
    with daemon(tmp_path, sockets.DOCKER, DOCKERS) as asked:
        for number in range(sockets.MAX_IN_VAIN - 1):
            runtimes.find(f"/docker/{number:064x}")
        assert runtimes.find(PATH).facts.container == "web"
        for number in range(1000, 1010):
            runtimes.find(f"/docker/{number:064x}")
    assert len(asked) == sockets.MAX_IN_VAIN + 1


@pytest.mark.parametrize("status", ["500 Oh", "404 No"])
def test_an_error_of_a_daemon_is_no_answer(tmp_path: Path, runtimes: Runtimes, status: str) -> None:
    process(tmp_path / "proc", 4242, PATH)
    with daemon(tmp_path, sockets.DOCKER, DOCKERS, status):
        assert runtimes.find(PATH).facts == Facts()


def test_a_socket_of_a_user_is_not_asked(
    tmp_path: Path, runtimes: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(tmp_path / "proc", 4242, PATH)
    monkeypatch.setattr(files, "OWNER", os.geteuid() + 1)
    with daemon(tmp_path, sockets.DOCKER, DOCKERS) as asked:
        assert runtimes.find(PATH).facts == Facts()
    assert asked == []


def test_a_link_to_a_socket_is_not_followed(tmp_path: Path, runtimes: Runtimes) -> None:
    process(tmp_path / "proc", 4242, PATH)
    with daemon(tmp_path, "/run/user.sock", DOCKERS) as asked:
        (tmp_path / "run/docker.sock").symlink_to(tmp_path / "run/user.sock")
        assert runtimes.find(PATH).facts == Facts()
    assert asked == []


def test_rootless_podman_is_not_asked_for(tmp_path: Path, runtimes: Runtimes) -> None:
    with daemon(tmp_path, "/run/user/1000/podman/podman.sock", PODMANS) as asked:
        path = f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"
        assert runtimes.find(path).facts == Facts(unit="user@1000.service")
    assert asked == []
