# SPDX-License-Identifier: BSD-2-Clause
"""The command lines in the docs, the help texts and the packages."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from itertools import product
from pathlib import Path
from typing import NamedTuple

from cgnet.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("news/*.md")])
# In a code block: at the beginning of a line, after a prompt. Two blanks or a # begin a remark, and
# a pipe another program.
IN_BLOCK = re.compile(r"^\s*[#$] (?:sudo )?(cgnet (?:\S ?)+)", re.MULTILINE)
OTHER_IN_BLOCK = re.compile(r"^\s*[#$] (?:sudo )?(?!cgnet )(.+)", re.MULTILINE)
IN_EXAMPLES = re.compile(r"^\s*(cgnet (?:\S ?)+)", re.MULTILINE)
IN_TEXT = re.compile(r"`(cgnet [^`]+)`")
BLOCK = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMES = sorted(COMMANDS)
# Placeholders for readers to replace, and values for them.
PATTERNS = {"COMMAND": NAMES, "PATH": ["/kubepods"], "FILE": ["vmlinux.btf"]}
PART = "…"  # in incomplete lines


class Line(NamedTuple):
    """A command line and its source."""

    source: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.source}: cgnet {shlex.join(self.arguments)}"


def _arguments(text: str) -> tuple[str, ...]:
    """Return a command's arguments, up to a pipe or another command."""
    words = shlex.shlex(text, posix=True, punctuation_chars="|>&;")
    words.whitespace_split = True
    words.commenters = "#"
    found: list[str] = []
    for word in words:
        if word and set(word) <= set("|>&;"):
            break
        found.append(word)
    return tuple(found[1:])


def _of(source: str, texts: list[str]) -> list[Line]:
    made = [_arguments(text) for text in texts if PART not in text]
    return [
        Line(source, meant)
        for arguments in made
        for meant in product(*(PATTERNS.get(word, [word]) for word in arguments))
    ]


def of_page(path: Path) -> list[Line]:
    """Return the command lines of a page."""
    text = path.read_text(encoding="utf-8")
    found = [each for block in BLOCK.findall(text) for each in IN_BLOCK.findall(block)]
    found += IN_TEXT.findall(BLOCK.sub("", text))
    return _of(str(path.relative_to(ROOT)), found)


def of_help(name: str) -> list[Line]:
    """Return the examples of a command's help."""
    text = inspect.getsource(importlib.import_module(COMMANDS[name].module))
    epilog = text.partition('EPILOG = """')[2].partition('"""')[0]
    return _of(f"{name} --help", IN_EXAMPLES.findall(epilog))


def of_service() -> list[Line]:
    """Return the command line of the example service."""
    path = ROOT / "packaging/cgnet-connect.service"
    text = path.read_text(encoding="utf-8")
    return _of(path.name, re.findall(r"^ExecStart=/usr/bin/(cgnet .*)$", text, re.MULTILINE))


def of_manual() -> list[Line]:
    """Return the examples of the Chinese manual page, which isn't generated."""
    text = (ROOT / "packaging/zh_CN/cgnet.8").read_text(encoding="utf-8")
    plain = text.replace("\\-", "-").replace("\\(aq", "'")
    examples = plain.partition(".SH 示例")[2].partition(".SH")[0]
    return _of("zh_CN/cgnet.8", IN_EXAMPLES.findall(examples))


def all_lines() -> list[Line]:
    """Return the command lines of all sources."""
    lists = [*map(of_page, PAGES), *map(of_help, NAMES), of_service(), of_manual()]
    return [line for each in lists for line in each]


def others_of_page(path: Path) -> list[list[str]]:
    """Return the lines of a page's code blocks that run other programs, as words."""
    blocks = BLOCK.findall(path.read_text(encoding="utf-8"))
    found = [each for block in blocks for each in OTHER_IN_BLOCK.findall(block)]
    return [shlex.split(each, comments=True) for each in found]
