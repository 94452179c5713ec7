# SPDX-License-Identifier: BSD-2-Clause
"""What the docs say can be typed is taken; what they link to is there; no command is left out."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

import pytest
from command_lines import (
    NAMES,
    PAGES,
    ROOT,
    Line,
    all_lines,
    of_help,
    of_manual,
    of_page,
    of_service,
    others_of_page,
)

from cgnet import __version__
from cgnet.cli import _run
from cgnet.commands import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path

# What the docs have typed beside cgnet, and why no test runs it.
OTHERS = {
    "make": "its targets are what CI runs; that they are there is tested",
    "apt-get": "tools/deps.sh installs the same, before anything is tested",
    "dnf": "likewise, elsewhere",
    "journalctl": "what is behind its pipe is tried in test_session.py",
    "python3": "tests/shipping/test_install.py runs it, in fresh roots",
    "/opt/cgnet/bin/pip": "likewise",
    "ln": "likewise",
    "pahole": "it takes a kernel image with debug information",
    "bpftool": "it takes what pahole made",
    "install": "it takes what bpftool made",
}
# In a page's text, in a workflow's steps, and in its matrix.
MAKE = re.compile(
    r"`make ([a-z0-9-]+)[ `]|run: .*\bmake ([a-z0-9 -]+)$|^ +target: \[(.*)\]$", re.MULTILINE
)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)]*)?\)")


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each command read its options, and end where it would begin to work."""

    class Session:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def run(self) -> int:
            return 0

    for name in NAMES:
        module: Any = importlib.import_module(COMMANDS[name].module)
        if hasattr(module, "Session"):
            monkeypatch.setattr(module, "Session", Session)
        else:
            monkeypatch.setattr(module.command, "callback", lambda **_: 0)


@pytest.mark.parametrize("line", all_lines(), ids=str)
@pytest.mark.usefixtures("nothing_runs")
def test_a_command_line_of_the_docs_is_taken(
    line: Line,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vmlinux.btf").touch()
    status = _run(list(line.arguments) or ["--help"])
    assert (status, capsys.readouterr().err) == (0, "")


def test_every_line_is_one_of_cgnet_or_of_another_program() -> None:
    """A line that no pattern finds would be tried by no test."""
    assert {words[0] for page in PAGES for words in others_of_page(page)} == set(OTHERS)


def test_make_has_the_targets_that_are_named() -> None:
    """In pages, and in the workflows."""
    rules = "".join((ROOT / each).read_text() for each in ("Makefile", "packaging/packages.mk"))
    targets = set(re.findall(r"^([a-z0-9-]+):", rules, re.MULTILINE))
    named = {
        word
        for page in PAGES
        for words in others_of_page(page)
        for word in words[1:]
        if words[0] == "make"
    }
    for path in (*PAGES, *(ROOT / ".github/workflows").glob("*.yml")):
        for found in MAKE.findall(path.read_text(encoding="utf-8")):
            named |= set(re.findall(r"[a-z0-9-]+", "".join(found)))
    assert {"deps", "demo", "lint-workflows", "test-kernel", "test-vm", "test-rpm"} <= named
    assert named <= targets


@pytest.mark.parametrize("name", NAMES)
def test_a_command_has_a_page_with_its_command_lines(name: str) -> None:
    assert [each for each in of_page(ROOT / f"docs/{name}.md") if each.arguments[:1] == (name,)]
    assert of_help(name)


@pytest.mark.parametrize("page", ["README.md", "README.zh_CN.md", "docs/usage.md"])
def test_a_page_of_all_commands_has_each(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [name for name in NAMES if f"({name}.md)" not in text.replace("docs/", "")] == []


def test_the_chinese_readme_has_the_commands_and_the_pages_of_the_other() -> None:
    english, chinese = (ROOT / each for each in ("README.md", "README.zh_CN.md"))
    found = [{line.arguments for line in of_page(each)} for each in (english, chinese)]
    assert found[0] == found[1]
    texts = [each.read_text(encoding="utf-8") for each in (english, chinese)]
    links = [{target for target, _ in LINK.findall(text)} for text in texts]
    assert links[0] - {chinese.name} == links[1] - {english.name}
    typed = [others_of_page(each) for each in (english, chinese)]
    assert typed[0] == typed[1]


@pytest.mark.parametrize(
    ("page", "pattern"),
    [
        ("packaging/cgnet.spec", r"^Version: +(\S+)$"),
        ("packaging/cgnet.spec", r"^\* .* - (\S+)-1$"),
        ("packaging/zh_CN/cgnet.8", r'^\.TH .*"cgnet (\S+)"'),
    ],
)
def test_the_version_is_the_same_everywhere(page: str, pattern: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert re.findall(pattern, text, re.MULTILINE)[0] == __version__


def test_what_the_spec_bundles_is_what_is_pinned() -> None:
    spec = (ROOT / "packaging/cgnet.spec").read_text(encoding="utf-8")
    pinned = (ROOT / "packaging/bundled.txt").read_text(encoding="utf-8")
    wanted = dict(re.findall(r"^(\S+)==(\S+)", pinned, re.MULTILINE))
    assert dict(re.findall(r"bundled\(python3dist\((\S+)\)\) = (\S+)", spec)) == wanted
    files = re.findall(r"^Source1\d: +(\S+?)-(\S+?)-py3", spec, re.MULTILINE)
    assert {name.replace("_", "-"): version for name, version in files} == wanted


def test_lines_are_found_where_they_are_looked_for() -> None:
    """A pattern that finds nothing would test nothing."""
    for found in (of_service(), of_manual(), of_page(ROOT / "README.md")):
        assert found


def anchors(path: Path) -> set[str]:
    """Return what a page's headers can be linked by, as forges make it of them."""
    headers = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", header.lower()).replace(" ", "-") for header in headers}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), f"{target}{anchor}"
