# SPDX-License-Identifier: BSD-2-Clause
"""Fake objects and maps, whose contents tests can examine."""

from __future__ import annotations

import errno
import json
import sys
from typing import TYPE_CHECKING, Any, Self

from cgnet.cli import _run
from cgnet.errors import LibbpfError
from cgnet.records._layouts import LostWhere

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from cgnet.run.command import Command


class FakeMap:
    """Stores keys and values as written; a full map takes no new key."""

    def __init__(self, full_at: int = 1 << 30, fd: int = 0) -> None:
        self.full_at = full_at
        self.fd = fd
        self.entries: dict[bytes, bytes] = {}

    def update(self, key: bytes, value: bytes) -> None:
        if key not in self.entries and len(self.entries) >= self.full_at:
            raise LibbpfError("no room", errno.E2BIG)
        self.entries[key] = value

    def replace(self, key: bytes, value: bytes) -> bool:
        if key not in self.entries:
            return False
        self.entries[key] = value
        return True

    def discard(self, key: bytes) -> bool:
        return self.entries.pop(key, None) is not None

    def lookup(self, key: bytes, size: int) -> bytes:
        if key not in self.entries:
            raise LibbpfError("not there", errno.ENOENT)
        value = self.entries[key]
        assert len(value) == size
        return value

    def keys(self, size: int) -> Iterator[bytes]:
        for key in self.entries:
            assert len(key) == size
            yield key


class FakeObject:
    """Creates each map at its first use."""

    def __init__(self, full_at: int = 1 << 30) -> None:
        self.full_at = full_at
        self.maps: dict[str, FakeMap] = {}
        self.sizes: dict[str, int] = {}

    def has_map(self, _name: str) -> bool:
        """Whatever is asked for is there."""
        return True

    def resize(self, name: str, max_entries: int) -> None:
        assert name not in self.sizes
        self.sizes[name] = max_entries

    def map(self, name: str) -> FakeMap:
        if name not in self.maps:
            self.maps[name] = FakeMap(self.full_at, fd=100 + len(self.maps))
        return self.maps[name]

    def entries(self, name: str) -> dict[bytes, bytes]:
        return self.map(name).entries


def u32(number: int) -> bytes:
    return number.to_bytes(4, sys.byteorder)


class FakeKernel(FakeObject):
    """A fake launched object, with its ring and maps."""

    follows_listeners = False
    runs: dict[str, str] = {}  # noqa: RUF012 - read-only
    filled = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[bytes]] = []
        self.late: list[bytes] = []  # arrive between the last read and the detaching
        self.lost = dict.fromkeys(LostWhere, 0)
        self.did: list[str] = []
        self.has: set[str] = set()  # optional maps of the object
        self.told: dict[str, Any] = {}  # the launch's arguments, by name

    def launch(self, command: Command, *_: Any, **told: Any) -> Self:
        self.command = command
        self.told = told | {"config": command.config([]), "maps": command.maps()}
        return self

    def has_map(self, name: str) -> bool:
        return name in self.has

    def iterator(self, name: str, elements_of: str) -> None:
        self.did.append(f"{name} over {elements_of}")

    def start(self, *_: Any) -> Self:
        self.did.append("start")
        for where, number in self.lost.items():
            self.map("lost").update(u32(where), number.to_bytes(8, sys.byteorder))
        return self

    @property
    def remarks(self) -> list[str]:
        """What is said where each job has its last variant."""
        said = [job.variants[-1].remark for job in self.command.needed() if job.variants]
        return [*filter(None, said), *self.command.remarks()]

    def ring(self, _name: str) -> Self:
        return self

    def attached(self) -> list[Any]:
        return []

    def consume(self) -> list[bytes]:
        return self.batches.pop(0) if self.batches else []

    def detach(self) -> None:
        self.did.append("detach")
        self.batches += [self.late] if self.late else []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.did.append("close")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def run(
    capfd: pytest.CaptureFixture[str], *arguments: str, command: str = "connect"
) -> tuple[int, str, list[str]]:
    """Run a command; return its status, output and lines of stderr."""
    status = _run([command, "--duration", "0.01", *arguments])
    said = capfd.readouterr()
    return status, said.out, said.err.splitlines()
