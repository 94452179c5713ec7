# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures for tests on the real kernel. They need root."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("harness")  # its assertions tell what they compared, too

from harness import HIERARCHY, V1, V2, listener, new_cgroup, new_netns  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True, scope="session")
def _root() -> None:
    assert os.geteuid() == 0, "these tests load BPF programs: run them as root (make test does)"


@pytest.fixture(params=["tp_btf", "raw_tp"])
def hook(request: pytest.FixtureRequest) -> str:
    """Each of the two kinds of hook, forced."""
    return str(request.param)


@pytest.fixture
def netns() -> Iterator[str]:
    with new_netns() as name:
        yield name


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup of the hierarchy that names owners by default."""
    with new_cgroup(HIERARCHY) as path:
        yield path


@pytest.fixture
def v1() -> Iterator[Path]:
    """A cgroup of the v1 memory hierarchy."""
    if not V1.is_dir():
        pytest.skip("this host has no v1 memory hierarchy")
    with new_cgroup(V1) as path:
        yield path


@pytest.fixture
def v2() -> Iterator[Path]:
    with new_cgroup(V2) as path:
        yield path


@pytest.fixture
def port() -> Iterator[int]:
    """The port of an echo server on 127.0.0.1."""
    with listener() as number:
        yield number
