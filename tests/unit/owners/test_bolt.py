# SPDX-License-Identifier: BSD-2-Clause
"""The reader of bbolt databases, on made-up ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from bolt_file import PAGE, database, meta
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgnet.owners.runtimes import bolt

if TYPE_CHECKING:
    from pathlib import Path

TREE = {
    b"ctr": {b"1": {b"config": b"{}", b"state": b"x" * 9000}, b"2": {}},
    b"pod": {b"p": {b"config": b"pod"}},
    b"z": b"plain",
}


def get(path: Path, raw: bytes, *keys: bytes) -> bytes | dict[bytes, bytes] | None:
    path.write_bytes(raw)
    fd = os.open(path, os.O_RDONLY)
    try:
        return bolt.get(fd, *keys)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ((b"ctr", b"1", b"config"), b"{}"),
        ((b"ctr", b"1", b"state"), b"x" * 9000),
        ((b"pod", b"p", b"config"), b"pod"),
        ((b"pod", b"p"), {b"config": b"pod"}),
        ((b"ctr", b"2"), {}),
        ((b"z",), b"plain"),
        ((b"z", b"more"), None),
        ((b"ctr", b"3", b"config"), None),
        ((b"a",), None),
        ((b"zz",), None),
    ],
)
def test_a_value_is_found_by_its_keys(
    tmp_path: Path, keys: tuple[bytes, ...], value: bytes | dict[bytes, bytes] | None
) -> None:
    assert get(tmp_path / "db", database(TREE), *keys) == value


def test_the_newer_of_two_beginnings_counts_unless_it_is_damaged(tmp_path: Path) -> None:
    raw = database(TREE)
    older = meta(0, 2, 6)
    torn = older + b"\xff" * 64 + raw[PAGE + 64 :]
    assert get(tmp_path / "db", torn, b"z") == b"plain"
    with pytest.raises(ValueError, match="damaged"):
        get(tmp_path / "db", meta(0, 9999, 8) + raw[PAGE:], b"z")


@pytest.mark.parametrize("raw", [b"", b"\0" * 100, b"x" * 3 * PAGE, database(TREE)[: PAGE + 8]])
def test_what_is_no_database_is_refused(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"no bbolt|damaged"):
        get(tmp_path / "db", raw, b"z")


def test_a_loop_of_pages_ends(tmp_path: Path) -> None:
    raw = bytearray(database({b"a": b"1", b"b": b"2"}))
    at = raw.index((3).to_bytes(8, "little"), 2 * PAGE + 16)
    raw[at : at + 8] = (2).to_bytes(8, "little")
    with pytest.raises(ValueError, match="damaged"):
        get(tmp_path / "db", bytes(raw), b"a")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2 * PAGE, 5 * PAGE), st.binary(min_size=1, max_size=40))
def test_damage_gives_an_answer_or_a_value_error(tmp_path: Path, at: int, junk: bytes) -> None:
    raw = bytearray(database(TREE))
    raw[at : at + len(junk)] = junk
    try:
        get(tmp_path / "db", bytes(raw), b"ctr", b"1", b"config")
    except ValueError:
        return


def test_a_database_that_is_written_meanwhile_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "db"
    path.write_bytes(database({b"z": b"old"}))
    read = bolt._get

    def read_and_write(*arguments: object) -> object:
        found = read(*arguments)  # type: ignore[arg-type]
        path.write_bytes(database({b"z": b"new"}, transaction=9))
        return found

    monkeypatch.setattr(bolt, "_get", read_and_write)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert bolt.get(fd, b"z") == b"new"
    finally:
        os.close(fd)
