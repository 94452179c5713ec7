# SPDX-License-Identifier: BSD-2-Clause
"""Options, fields and columns that the docs name are there, and those that are there are named."""

from __future__ import annotations

import importlib
import re
from typing import Any

import click
import pytest
from command_lines import NAMES, PAGES, ROOT
from commands_made import TRACING, command_of
from records import Names, no_runtimes

from cgnet.commands import COMMANDS
from cgnet.commands.containers import FIELDS, HEAD
from cgnet.counting import histograms
from cgnet.render.table import column

OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z0-9][a-z0-9-]*")
CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"`([a-z][a-z0-9_]*)`")
CAPITALS = re.compile(r"(?<![\w`])[A-Z]{3,}(?: [A-Z]{2,})*(?:/[A-Z]+)?(?![\w`+])")
# Words in capitals that are no columns.
TERMS = {
    "ACK", "BPF", "CPU", "FIN", "ICMP", "JSON", "MTU", "RST", "SYN", "SYNs", "TCP", "TIME_WAIT",
}  # fmt: skip
# Where pages name other programs' options by themselves.
FOREIGN = {"coming-from.md", "comparison.md", "kernels.md", "packages.md"}


def text_of(name: str) -> str:
    return (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")


def section(text: str, header: str) -> str:
    """Return what stands below a header, down to the next one of its level; "" if there is none."""
    found = re.search(rf"^## {header}\b.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def cells(text: str, header: str) -> list[str]:
    """Return the first cells of the tables whose header begins so."""
    found: list[str] = []
    inside = False
    for line in text.splitlines():
        first = line.split("|")[1].strip() if line.startswith("|") else ""
        inside = first == header or (inside and bool(first))
        if inside and first != header and set(first) != {"-"}:
            found.append(first)
    return found


def options_of(name: str) -> list[click.Option]:
    command = importlib.import_module(COMMANDS[name].module).command
    return [each for each in command.params if isinstance(each, click.Option) and not each.hidden]


def spellings(name: str) -> set[str]:
    return {spelling for option in options_of(name) for spelling in option.opts}


def in_code(text: str) -> set[str]:
    """Return the options that are written as code."""
    return {option for code in CODE.findall(text) for option in OPTION.findall(code)}


@pytest.mark.parametrize("name", NAMES)
def test_an_option_is_in_the_commands_page_or_in_that_of_all(name: str) -> None:
    named = in_code(text_of(name) + text_of("usage"))
    assert [each.opts for each in options_of(name) if not named & {*each.opts}] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_an_option_takes_is_named_likewise(name: str) -> None:
    words = set(re.findall(r"[\w.]+", " ".join(CODE.findall(text_of(name) + text_of("usage")))))
    choices = [each.type for each in options_of(name) if isinstance(each.type, click.Choice)]
    assert choices
    assert [word for each in choices for word in each.choices if word not in words] == []


@pytest.mark.parametrize("name", TRACING)
def test_an_option_of_one_command_is_in_its_table(name: str) -> None:
    others = set().union(*(spellings(each) for each in TRACING if each != name))
    named = {option for cell in cells(text_of(name), "option") for option in OPTION.findall(cell)}
    assert spellings(name) - others - named == set()
    assert named - spellings(name) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_an_option_that_stands_alone_is_cgnets(page: Any) -> None:
    if page.name in FOREIGN:
        return
    codes = CODE.findall(page.read_text(encoding="utf-8"))
    named = {found[0] for code in codes if (found := OPTION.match(code))}
    assert named - {"-h", "--help", "--version"}.union(*map(spellings, NAMES)) == set()


def test_an_option_of_the_chinese_manual_is_there() -> None:
    text = (ROOT / "packaging/zh_CN/cgnet.8").read_text(encoding="utf-8").replace("\\-", "-")
    named = {*OPTION.findall(re.sub(r"\\f.", " ", text))}
    assert "--by" in named
    assert named - {"--help", "-v"}.union(*map(spellings, NAMES)) == set()


def fields_of(name: str) -> tuple[str, ...]:
    """Return the fields of a command's records."""
    names: Any = Names()
    groups = command_of(name).fields(names, no_runtimes())
    return tuple(dict.fromkeys(field for group in groups for field in group.fields))


def named_fields(text: str) -> set[str]:
    return {field for cell in cells(text, "field") for field in NAME.findall(cell)}


@pytest.mark.parametrize("name", TRACING)
def test_the_record_has_the_fields_that_its_page_has(name: str) -> None:
    record = text_of("record")
    shared = named_fields(section(record, "connect"))
    own = named_fields(section(record, name)) if name != "connlat" else shared
    fields = {*fields_of(name)}
    assert fields - own - shared == set()
    assert own - fields == set()


def test_the_fields_of_histograms_and_containers_are_those_of_their_tables() -> None:
    assert named_fields(section(text_of("record"), "Histograms")) == {*histograms.FIELDS}
    head = {*HEAD}
    assert named_fields(text_of("containers")) | head == {*FIELDS} | head


@pytest.mark.parametrize("name", TRACING)
def test_a_column_that_is_named_is_there(name: str) -> None:
    columns = command_of(name).columns
    shown = {column(field).header for fields in columns.values() for field in fields}
    text = re.sub(r"`[^`]*`", "", section(text_of(name), "Columns"))
    assert {*CAPITALS.findall(text)} - shown - TERMS == set()
