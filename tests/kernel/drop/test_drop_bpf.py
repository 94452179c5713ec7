# SPDX-License-Identifier: BSD-2-Clause
"""Packets that BPF programs dropped: at a cgroup, at a device, at the socket itself."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from harness import ROOT
from kernel_maps import libbpf
from rtt_callback import build
from test_drop_explain import explained, explaining
from test_drop_sockets import FAMILIES

from cgnet.findings.tcp_memory import directory
from cgnet.kernel._libbpf import lib
from cgnet.loader import Object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from two_containers import TwoContainers

SOURCE = ROOT / "tests/kernel/support/dropping.bpf.c"
PORT = 9
INGRESS = 0  # enum bpf_attach_type: BPF_CGROUP_INET_INGRESS
# struct sock_filter: BPF_RET of 0, which keeps nothing of a packet
NOTHING = "__import__('struct').pack('HBBI', 6, 0, 0, 0)"


@pytest.fixture(scope="module")
def dropping_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("bpf"), SOURCE)


@contextmanager
def at_cgroup(path: Path, cgroup: Path) -> Iterator[None]:
    opened = os.open(cgroup, os.O_RDONLY)
    try:
        with Object(path) as obj:
            obj.load()
            (program,) = (each for each in obj.programs if each.name == "refuse_port_9")
            link = libbpf.bpf_link_create(
                lib.bpf_program__fd(program.handle), opened, INGRESS, None
            )
            assert link >= 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                os.close(link)
    finally:
        os.close(opened)


@FAMILIES
def test_program_at_a_cgroup(
    containers: TwoContainers, family: int, hook: str, dropping_object: Path
) -> None:
    client, server = containers.client, containers.server
    with (
        explaining(server, "--hook", hook) as drops,
        client.remote() as remote,
        server.remote() as serving,
    ):
        serving.listen(server.address(family), PORT)
        cgroup = directory("v2", serving.pid, None)
        if not cgroup:
            pytest.skip("no cgroup of v2")
        with at_cgroup(dropping_object, cgroup):
            remote.connect(server.address(family), PORT)
            row = drops.one(f"tcp_v{family}_rcv", reason="SOCKET_FILTER")
            assert row == row | {"reason_class": "firewall", "pid": serving.pid}
        # What is gone by now was there when the packet was dropped.
        advice = explained(drops, server, reason="SOCKET_FILTER")
    (program,) = advice["evidence"]["programs"]
    assert program["name"] == "refuse_port_9"
    assert str(cgroup) in advice["text"]


@FAMILIES
def test_filter_of_the_application(containers: TwoContainers, family: int, hook: str) -> None:
    client, server = containers.client, containers.server
    with (
        explaining(server, "--hook", hook) as drops,
        client.remote() as remote,
        server.remote() as serving,
    ):
        port = serving.listen(server.address(family))
        serving.do("import ctypes")
        serving.do(f"code = ctypes.create_string_buffer({NOTHING})")
        serving.do("program = struct.pack('HxxxxxxQ', 1, ctypes.addressof(code))")
        serving.do("server.setsockopt(socket.SOL_SOCKET, 26, program)")  # SO_ATTACH_FILTER
        remote.connect(server.address(family), port)
        row = drops.one(f"tcp_v{family}_rcv", reason="SOCKET_FILTER")
        assert row["reason_class"] == "application"
        advice = explained(drops, server, reason="SOCKET_FILTER")
    assert advice["text"].startswith("a filter that the application has set itself")


def test_program_at_a_device(containers: TwoContainers, dropping_object: Path) -> None:
    client, router = containers.client, containers.router
    with explaining(router) as drops, client.remote() as remote:
        xdp = ("xdpgeneric", "obj", str(dropping_object), "sec", "xdp")
        router.run("ip", "link", "set", "dev", "to_client", *xdp)
        try:
            remote.connect(containers.server.address(4), PORT)
            row = drops.one("do_xdp_generic", netns=router.inode, dport=PORT)
        finally:
            router.run("ip", "link", "set", "dev", "to_client", "xdpgeneric", "off")
        assert row["reason_class"] == "firewall"
        advice = explained(drops, router, reason=row["reason"])
    assert f"ip netns exec {router.netns} ip -d link show dev to_client" in advice["text"]
