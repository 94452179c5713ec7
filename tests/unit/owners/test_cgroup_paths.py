# SPDX-License-Identifier: BSD-2-Clause
"""What paths of cgroups say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgnet.owners.cgroup_paths import HEX_ID, Candidate, Place, path_of_spec, place

A, B = "a1" * 32, "b2" * 32
UID = "0c9bb7a5-6ac4-4f3f-8a8d-8e2c1f4b8d11"
SLICE_UID = UID.replace("-", "_")
STATIC = "5e2b7a8c9d0e4f1a5e2b7a8c9d0e4f1a"
TASK = "c" * 32
BESTEFFORT = "/kubepods.slice/kubepods-besteffort.slice"
POD_SLICE = f"{BESTEFFORT}/kubepods-besteffort-pod{SLICE_UID}.slice"
MISMATCH = f"/system.slice/containerd.service/kubepods-burstable-pod{SLICE_UID}.slice"
KUBELET = f"/docker/{B}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice"
KIND = f"{KUBELET}/kubelet-kubepods-besteffort"
ROOTLESS = "/user.slice/user-1000.slice/user@1000.service/user.slice"

# Path, runtime and id of the innermost container, pod's uid, class of the pod, unit.
FORMS = [
    ("docker cgroupfs", f"/docker/{A}", "docker", A, None, None, None),
    ("docker systemd", f"/system.slice/docker-{A}.scope", "docker", A, None, None, None),
    ("k8s burstable", f"/kubepods/burstable/pod{UID}/{A}", None, A, UID, "burstable", None),
    ("k8s guaranteed", f"/kubepods/pod{UID}/{A}", None, A, UID, "guaranteed", None),
    ("k8s static", f"/kubepods/besteffort/pod{STATIC}/{A}", None, A, STATIC, "besteffort", None),
    ("k8s CRI-O", f"/kubepods/pod{UID}/crio-{A}", "cri-o", A, UID, "guaranteed", None),
    (
        "k8s systemd", f"{POD_SLICE}/cri-containerd-{A}.scope", "containerd", A, UID,
        "besteffort", None,
    ),
    ("k8s systemd docker", f"{POD_SLICE}/docker-{A}.scope", "docker", A, UID, "besteffort", None),
    ("k8s systemd CRI-O", f"{POD_SLICE}/crio-{A}.scope", "cri-o", A, UID, "besteffort", None),
    (
        "k8s systemd guaranteed",
        f"/kubepods.slice/kubepods-pod{SLICE_UID}.slice/cri-containerd-{A}.scope",
        "containerd", A, UID, "guaranteed", None,
    ),
    ("no .scope", f"{POD_SLICE}/cri-containerd-{A}", "containerd", A, UID, "besteffort", None),
    ("crun", f"{POD_SLICE}/crio-{A}.scope/container", "cri-o", A, UID, "besteffort", None),
    (
        "driver mismatch",
        f"{MISMATCH}:cri-containerd:{A}",
        "containerd", A, UID, "burstable", "containerd.service",
    ),
    (
        "nested in the container", f"/kubepods/besteffort/pod{UID}/{A}/kube-proxy", None, A, UID,
        "besteffort", None,
    ),
    ("systemd inside", f"/docker/{A}/init.scope", "docker", A, None, None, None),
    ("ctr by name", "/default/redis", "containerd", "redis", None, None, None),
    ("ctr by id", f"/default/{A}", None, A, None, None, None),
    ("containerd's k8s.io", "/k8s.io/web-1", "containerd", "web-1", None, None, None),
    ("nerdctl", f"/system.slice/nerdctl-{A}.scope", "containerd", A, None, None, None),
    ("podman root", f"/machine.slice/libpod-{A}.scope", "podman", A, None, None, None),
    ("podman crun", f"/machine.slice/libpod-{A}.scope/container", "podman", A, None, None, None),
    ("podman cgroupfs", f"/libpod_parent/libpod-{A}", "podman", A, None, None, None),
    ("podman pod", f"/libpod_parent/{B}/libpod-{A}", "podman", A, None, None, None),
    (
        "podman pod systemd", f"/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope",
        "podman", A, None, None, None,
    ),
    (
        "podman rootless", f"{ROOTLESS}/libpod-{A}.scope/container", "podman", A, None, None,
        "user@1000.service",
    ),
    (
        "podman quadlet", f"/system.slice/app.service/libpod-payload-{A}", "podman", A, None, None,
        "app.service",
    ),
    ("ECS", f"/ecs/{TASK}/{A}", None, A, None, None, None),
    (
        "ECS systemd", f"/ecstasks.slice/ecstasks-{TASK}.slice/docker-{A}.scope", "docker", A,
        None, None, None,
    ),
    ("Fargate", f"/ecs/{TASK}/{TASK}-3456", None, f"{TASK}-3456", None, None, None),
    ("LXC", "/lxc/web", "lxc", "web", None, None, None),
    ("LXC payload", "/lxc.payload.web/init.scope", "lxc", "web", None, None, None),
    ("docker in docker", f"/docker/{B}/docker/{A}", "docker", A, None, None, None),
    (
        "kind", f"/docker/{B}/kubelet/kubepods/burstable/pod{UID}/{A}", None, A, UID,
        "burstable", None,
    ),
    (
        "kind with systemd",
        f"{KIND}-pod{SLICE_UID}.slice/cri-containerd-{A}.scope",
        "containerd", A, UID, "besteffort", None,
    ),
    (
        "from a cgroup namespace", f"/../../../../system.slice/docker-{A}.scope", "docker", A,
        None, None, None,
    ),
]  # fmt: skip
# Path, unit. In none of them is a container.
OTHERS = [
    ("/", None),
    ("", None),
    ("/system.slice", None),
    ("/system.slice/nginx.service", "nginx.service"),
    ("/system.slice/nginx.service/worker", "nginx.service"),
    ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
    ("/system.slice/_cgroup.service", "cgroup.service"),
    ("/init.scope", "init.scope"),
    ("/user.slice/user-1000.slice/session-2.scope", "session-2.scope"),
    (f"{ROOTLESS}/app.service", "user@1000.service"),
    ("/reserved.slice/containerd.service", "containerd.service"),
    (f"/machine.slice/libpod-conmon-{A}.scope", f"libpod-conmon-{A}.scope"),
    (f"{POD_SLICE}/crio-conmon-{A}.scope", f"crio-conmon-{A}.scope"),
    ("/libpod_parent/conmon", None),
    (f"{POD_SLICE}", None),
    (f"/kubepods/besteffort/pod{UID}", None),
    ("/system.slice/docker.service", "docker.service"),
    (f"/docker/{A[:-1]}", None),
    (f"/docker/{A}0", None),
    (f"/docker/{A.upper()}", None),
    (f"/docker/x{A}", None),
    (f"/{A}-suffix", None),
    (f"/foo-{A}.scope", f"foo-{A}.scope"),
    ("/default", None),
    ("/default/.hidden", None),
    ("/user.slice/lxc/web", None),
    ("/lxc.monitor.web", None),
    ("/ecs/task/x-1", None),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form[0])
def test_a_containers_path_is_read(form: tuple[str, ...]) -> None:
    _, path, runtime, name, uid, qos, unit = form
    found = place(path)
    innermost = found.candidates[-1]
    assert (innermost.runtime, innermost.id) == (runtime, name)
    assert (found.pod_uid, found.qos, found.unit) == (uid, qos, unit)


@pytest.mark.parametrize(("path", "unit"), OTHERS)
def test_other_paths_have_no_container(path: str, unit: str | None) -> None:
    found = place(path)
    assert (found.candidates, found.unit) == ((), unit)


def test_nested_containers_are_told_the_outermost_first() -> None:
    assert place(f"/docker/{B}/docker/{A}/x").candidates == (
        Candidate(B, "docker", f"/docker/{B}"),
        Candidate(A, "docker", f"/docker/{B}/docker/{A}"),
    )


def test_podmans_monitor_in_a_container_is_in_that_container() -> None:
    found = place(f"/docker/{B}/libpod_parent/conmon")
    assert [each.id for each in found.candidates] == [B]


def test_a_pods_monitor_is_in_no_container() -> None:
    """The bare id is a pod's: no runtime will confirm it."""
    assert [each.id for each in place(f"/libpod_parent/{B}/conmon").candidates] == [B]


@pytest.mark.parametrize(
    ("path", "by_place"),
    [("/lxc.payload.web", True), (f"/ecs/{TASK}/{TASK}-1", True), (f"/docker/{A}", False)],
)
def test_only_a_place_at_the_top_speaks_for_itself(path: str, by_place: bool) -> None:
    assert [each.by_place for each in place(path).candidates] == [by_place]


@given(st.text() | st.lists(st.text(st.characters(codec="utf-8")), max_size=6).map("/".join))
def test_any_text_is_a_path(path: str) -> None:
    found = place(path)
    assert isinstance(found, Place)
    for each in found.candidates:
        assert each.cgroup.startswith("/")


names = st.sampled_from(
    ["kubepods", "machine.slice", "docker", B, f"docker-{B}.scope", f"pod{UID}", "..", "x"]
)


@given(
    st.lists(names, max_size=5),
    st.sampled_from([f"crio-conmon-{A}.scope", f"libpod-conmon-{A}.scope", f"crio-conmon-{A}"]),
    st.lists(names, max_size=2),
)
def test_a_monitor_never_has_its_containers_id(
    above: list[str], monitor: str, below: list[str]
) -> None:
    found = place("/" + "/".join([*above, monitor, *below]))
    assert A not in {each.id for each in found.candidates}
    assert len(found.candidates) <= sum(B in part for part in above)


@given(st.sampled_from([form[1] for form in FORMS]), st.lists(names, max_size=3))
def test_what_is_below_a_container_is_in_it(path: str, below: list[str]) -> None:
    inner = [part for part in below if B not in part]
    outer = place(path).candidates
    assert place("/".join([path, *inner])).candidates == outer


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (f"/docker/{A}", f"/docker/{A}"),
        (f"/kubepods/pod{UID}/../{A}/", f"/kubepods/pod{UID}/{A}"),
        (f"system.slice:docker:{A}", f"/system.slice/docker-{A}.scope"),
        (f":docker:{A}", f"/system.slice/docker-{A}.scope"),
        (f"-.slice:docker:{A}", f"/docker-{A}.scope"),
        (
            f"kubepods-besteffort-pod{SLICE_UID}.slice:cri-containerd:{A}",
            f"{POD_SLICE}/cri-containerd-{A}.scope",
        ),
        ("machine.slice:libpod:x.slice", "/machine.slice/x.slice"),
        (f"relative/{A}", None),
        ("a:b", None),
        ("", None),
    ],
)
def test_the_path_of_an_oci_configuration(spec: str, path: str | None) -> None:
    assert path_of_spec(spec) == path


def test_ids_are_64_small_hexadecimal_digits() -> None:
    assert HEX_ID.fullmatch(A)
    assert not HEX_ID.fullmatch(A + "\n")
    assert not place(f"/docker/{A}\n").candidates
