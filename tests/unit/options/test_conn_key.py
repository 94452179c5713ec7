# SPDX-License-Identifier: BSD-2-Clause
"""The file of ``--conn-key``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import pytest

from cgnet.options.conn_key import KeyFile

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "000102030405060708090a0b0c0d0eFF"


def key_file(folder: Path, text: str, mode: int = 0o600) -> str:
    path = folder / "key"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_a_key(tmp_path: Path, mode: int) -> None:
    read = KeyFile().convert(key_file(tmp_path, f"{TEXT}\n", mode), None, None)
    assert read == bytes.fromhex(TEXT)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(click.BadParameter, match="open to others; chmod 600"):
        KeyFile().convert(key_file(tmp_path, TEXT, mode), None, None)


@pytest.mark.parametrize("text", ["", "secret", TEXT[1:], TEXT + "0", f"{TEXT} {TEXT}", "g" * 32])
def test_another_text_is_no_key(tmp_path: Path, text: str) -> None:
    with pytest.raises(click.BadParameter, match="32 hexadecimal digits"):
        KeyFile().convert(key_file(tmp_path, text), None, None)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for path, why in (
        (fifo, "no regular file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(click.BadParameter, match=why):
            KeyFile().convert(str(path), None, None)
