# SPDX-License-Identifier: BSD-2-Clause
"""What is read of the runtimes' state, from made-up trees of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from runtime_state import (
    ID,
    OTHER,
    POD_PATH,
    STORAGE,
    TASKS,
    UID,
    USERDATA,
    containerd,
    containerd_labels,
    docker,
    oci,
    podman,
    podman_bolt,
    podman_sqlite,
    process,
    write,
)

from cgnet.owners.cgroup_paths import Facts
from cgnet.owners.runtimes import Runtimes, files

if TYPE_CHECKING:
    from pathlib import Path

KUBELET_LABELS = {
    "io.kubernetes.container.name": "app",
    "io.kubernetes.pod.name": "web-0",
    "io.kubernetes.pod.namespace": "shop",
}


@pytest.fixture(autouse=True)
def own_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the files of who runs the tests for root's."""
    monkeypatch.setattr(files, "OWNER", os.geteuid())


def facts(root: Path, path: str) -> Facts:
    runtimes = Runtimes(root, root / "proc")
    try:
        return runtimes.find(path).facts
    finally:
        runtimes.close()


def test_docker_by_its_files(tmp_path: Path) -> None:
    docker(tmp_path)
    expected = Facts("web", ID, "nginx:1", "docker", labels={"app": "shop"})
    assert facts(tmp_path, f"/docker/{ID}") == expected
    assert facts(tmp_path, f"/docker/{ID}/init.scope") == expected


def test_docker_with_systemd(tmp_path: Path) -> None:
    docker(tmp_path, cgroup=f"system.slice:docker:{ID}")
    assert facts(tmp_path, f"/system.slice/docker-{ID}.scope").container == "web"


def test_docker_whose_data_lies_elsewhere(tmp_path: Path) -> None:
    docker(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "var/lib/docker").rename(tmp_path / "data/docker")
    assert facts(tmp_path, f"/docker/{ID}") == Facts(None, ID, None, "docker")
    write(tmp_path, "etc/docker/daemon.json", {"data-root": "/data/docker"})
    assert facts(tmp_path, f"/docker/{ID}").container == "web"


def test_docker_by_its_process_where_its_cgroup_is_not_told(tmp_path: Path) -> None:
    docker(tmp_path)
    (tmp_path / TASKS / "moby" / ID / "config.json").unlink()
    assert facts(tmp_path, f"/docker/{ID}") == Facts()
    process(tmp_path / "proc", 4242, f"/docker/{ID}/init.scope")
    assert facts(tmp_path, f"/docker/{ID}").container == "web"


def test_a_pod_of_cri_dockerd(tmp_path: Path) -> None:
    cgroup = f"{POD_PATH}/{ID}"
    docker(tmp_path, cgroup=cgroup, Labels=KUBELET_LABELS)
    found = facts(tmp_path, cgroup)
    assert (found.container, found.pod, found.pod_namespace) == ("app", "web-0", "shop")


def test_an_image_with_the_kubelets_labels_makes_no_pod(tmp_path: Path) -> None:
    docker(tmp_path, Labels=KUBELET_LABELS)
    found = facts(tmp_path, f"/docker/{ID}")
    assert (found.container, found.pod, found.pod_namespace) == ("web", None, None)


def test_an_image_with_the_names_of_annotations_changes_no_pod(tmp_path: Path) -> None:
    labels = {**KUBELET_LABELS, "io.kubernetes.cri.sandbox-name": "forged"}
    docker(tmp_path, cgroup=f"{POD_PATH}/{ID}", Labels=labels)
    assert facts(tmp_path, f"{POD_PATH}/{ID}").pod == "web-0"


def test_containerd_of_kubernetes(tmp_path: Path) -> None:
    containerd(
        tmp_path, ID, f"{POD_PATH}/{ID}",
        io__kubernetes__cri__container_name="ignored",
        **{
            "io.kubernetes.cri.container-name": "app",
            "io.kubernetes.cri.sandbox-name": "web-0",
            "io.kubernetes.cri.sandbox-namespace": "shop",
            "io.kubernetes.cri.image-name": "nginx:1",
            "io.kubernetes.cri.sandbox-id": OTHER,
        },
    )  # fmt: skip
    containerd_labels(
        tmp_path, "k8s.io", **{ID: KUBELET_LABELS, OTHER: {"app": "web", "tier": "front"}}
    )
    labels = {"app": "web", "tier": "front", **KUBELET_LABELS}
    expected = Facts("app", ID, "nginx:1", "containerd", "web-0", "shop", labels=labels)
    assert facts(tmp_path, f"{POD_PATH}/{ID}") == expected


def test_an_older_containerd_tells_pods_by_labels(tmp_path: Path) -> None:
    containerd(tmp_path, ID, f"{POD_PATH}/{ID}")
    containerd_labels(tmp_path, "k8s.io", **{ID: KUBELET_LABELS})
    found = facts(tmp_path, f"{POD_PATH}/{ID}")
    assert (found.container, found.pod, found.pod_namespace) == ("app", "web-0", "shop")


def test_a_sandbox_is_its_pod_and_has_no_name(tmp_path: Path) -> None:
    tags = {
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-name": "web-0",
        "io.kubernetes.cri.sandbox-namespace": "shop",
    }
    containerd(tmp_path, ID, f"{POD_PATH}/{ID}", **tags)
    runtimes = Runtimes(tmp_path)
    known = runtimes.find(f"{POD_PATH}/{ID}")
    assert (known.facts.container, known.facts.pod, known.inside[0].sandbox, known.is_final) == (
        None, "web-0", True, True,
    )  # fmt: skip


@pytest.mark.parametrize("uid", [UID, UID.replace("-", "")])
def test_a_pod_is_known_by_the_kubelets_folder_of_logs(tmp_path: Path, uid: str) -> None:
    (tmp_path / f"var/log/pods/shop_web-0_{uid}").mkdir(parents=True)
    (tmp_path / "var/log/pods/other_x_1").mkdir()
    path = f"/kubepods/besteffort/pod{uid}/{ID}"
    containerd(tmp_path, ID, path)
    found = facts(tmp_path, path)
    assert (found.pod, found.pod_namespace) == ("web-0", "shop")


@pytest.mark.parametrize(("labels", "name"), [({}, ID), ({"nerdctl/name": "cache"}, "cache")])
def test_containerd_of_nerdctl_and_ctr(tmp_path: Path, labels: dict[str, str], name: str) -> None:
    containerd(tmp_path, ID, f"/default/{ID}", "default")
    containerd_labels(tmp_path, "default", **{ID: labels})
    expected = Facts(name, ID, "nginx:2", "containerd", labels=labels or None)
    assert facts(tmp_path, f"/default/{ID}") == expected


def test_ctr_with_a_name_for_an_id(tmp_path: Path) -> None:
    containerd(tmp_path, "redis", "/default/redis", "default")
    assert facts(tmp_path, "/default/redis/x") == Facts("redis", "redis", None, "containerd")


def test_crio(tmp_path: Path) -> None:
    tags = {
        "io.container.manager": "cri-o",
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.ImageName": "nginx:1",
        "io.kubernetes.cri-o.SandboxID": OTHER,
        "io.kubernetes.cri-o.Labels": '{"io.kubernetes.container.name":"app",'
        '"io.kubernetes.pod.name":"web-0","io.kubernetes.pod.namespace":"shop"}',
    }
    outer = {"io.kubernetes.cri-o.Labels": '{"run":"web"}'}
    cgroup = f"{POD_PATH}/crio-{ID}"
    write(tmp_path, USERDATA.format(ID), oci(cgroup, **tags))
    write(tmp_path, USERDATA.format(OTHER), oci("/x", **outer))
    labels = {"run": "web", **KUBELET_LABELS}
    expected = Facts("app", ID, "nginx:1", "cri-o", "web-0", "shop", labels=labels)
    assert facts(tmp_path, cgroup) == expected


@pytest.mark.parametrize("database", [podman_bolt, podman_sqlite])
def test_podman_by_its_databases(tmp_path: Path, database: object) -> None:
    podman(tmp_path)
    assert callable(database)
    database(tmp_path)
    expected = Facts("db", ID, "localhost/db:3", "podman", "shop", labels={"tier": "back"})
    assert facts(tmp_path, f"/libpod_parent/libpod-{ID}") == expected


def test_podmans_infra_container_is_a_sandbox(tmp_path: Path) -> None:
    podman(tmp_path)
    podman_bolt(tmp_path, pause=True)
    known = Runtimes(tmp_path).find(f"/libpod_parent/libpod-{ID}")
    assert (known.inside[0].sandbox, known.facts.pod) == (True, "shop")


def test_podman_by_the_list_of_its_storage(tmp_path: Path) -> None:
    podman(tmp_path)
    stored = [{"id": ID, "names": ["db"], "metadata": '{"image-name":"db:3","name":"db"}'}]
    write(tmp_path, f"{STORAGE}/overlay-containers/containers.json", stored)
    found = facts(tmp_path, f"/libpod_parent/libpod-{ID}")
    assert (found.container, found.image) == ("db", "db:3")


def test_sqlite_in_a_transaction_is_not_read(tmp_path: Path) -> None:
    podman(tmp_path)
    podman_sqlite(tmp_path)
    write(tmp_path, f"{STORAGE}/db.sql-journal", b"journal")
    assert facts(tmp_path, f"/libpod_parent/libpod-{ID}").container is None


def test_podman_in_a_unit(tmp_path: Path) -> None:
    path = f"/system.slice/app.service/libpod-payload-{ID}"
    podman(tmp_path, cgroup=path)
    podman_bolt(tmp_path)
    found = facts(tmp_path, path)
    assert (found.container, found.unit) == ("db", "app.service")


def test_lxc_by_its_place(tmp_path: Path) -> None:
    assert facts(tmp_path, "/lxc.payload.web/init.scope") == Facts("web", "web", None, "lxc")


def test_a_unit_where_there_is_no_container(tmp_path: Path) -> None:
    assert facts(tmp_path, "/system.slice/nginx.service") == Facts(unit="nginx.service")
