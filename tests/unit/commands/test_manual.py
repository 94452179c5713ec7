# SPDX-License-Identifier: BSD-2-Clause
"""The manual pages that tools/gen_man.py makes of what --help knows."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from cgnet.commands import COMMANDS
from cgnet.errors import ExitStatus

ROOT = Path(__file__).resolve().parents[3]
NAMES = sorted(COMMANDS)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return each page's text by its file's name."""
    folder = tmp_path_factory.mktemp("man")
    command = [sys.executable, ROOT / "tools/gen_man.py", folder]
    subprocess.run(command, check=True, env={"SOURCE_DATE_EPOCH": "1600000000"})
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_there_is_a_page_for_each_command(pages: dict[str, str]) -> None:
    assert set(pages) == {"cgnet.8", *(f"cgnet-{name}.8" for name in NAMES)}


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_the_options_and_the_examples(pages: dict[str, str], name: str) -> None:
    text = pages[f"cgnet-{name}.8"].replace("\\-", "-")
    assert "\n.SH EXAMPLES\n.nf\n" in text
    options = importlib.import_module(COMMANDS[name].module).command.params
    shown = [each.opts[0] for each in options if not getattr(each, "hidden", True)]
    assert [each for each in shown if each not in text] == []
    assert f'.TH CGNET\\-{name.upper()} 8 2020-09-13 "cgnet '.replace("\\-", "-") in text


def test_every_exit_status_is_told(pages: dict[str, str]) -> None:
    told = pages["cgnet.8"].partition(".SH EXIT STATUS")[2].partition(".SH")[0]
    assert [status for status in ExitStatus if f"\\fB{int(status)}\\fR" not in told] == []


def test_every_line_is_text_or_a_request_that_roff_knows(pages: dict[str, str]) -> None:
    known = {".TH", ".SH", ".TP", ".PP", ".nf", ".fi", '.\\"'}
    lines = [line for text in pages.values() for line in text.splitlines()]
    assert {line.split()[0] for line in lines if line.startswith((".", "'"))} <= known
