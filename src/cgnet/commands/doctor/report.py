# SPDX-License-Identifier: BSD-2-Clause
"""The report of ``cgnet doctor``, as plain text for people."""

from __future__ import annotations

import textwrap
from typing import Any

from cgnet.render.text import safe

LABEL = 14  # cells, of the first column
WIDTH = 110  # at most, and without a terminal
LEAST = 24  # beside a label, on any terminal
WORKS = {True: "yes", False: "no", None: "?"}


class _Page:
    """Lines of a limited width."""

    def __init__(self, width: int) -> None:
        """Take the terminal's columns."""
        self.width = min(width, WIDTH)

    def lines(self, label: str, *texts: str, labels: int = LABEL, indent: str = "  ") -> str:
        """Return paragraphs beside a label; long lines are wrapped.

        ``labels`` is the label's width in cells, ``indent`` that of continuation lines.
        """
        lines = [
            line
            for text in texts
            for line in textwrap.wrap(
                text,
                max(LEAST, self.width - labels),
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        ]
        beside = [label, *[""] * len(lines)]
        return "".join(
            f"{left:{labels}}{line}".rstrip() + "\n"
            for left, line in zip(beside, lines, strict=False)
        )


def _host(page: _Page, report: dict[str, Any]) -> str:
    kernel, btf, libbpf = report["kernel"], report["btf"], report["libbpf"]
    size = f", {btf['size'] / 1e6:.1f} MB" if btf["size"] is not None else ""
    library = f"{libbpf['version']}, {safe(libbpf['path'] or 'built in')}"
    return (
        page.lines("cgnet", safe(report["version"]))
        + page.lines("kernel", safe(f"{kernel['release']} {kernel['machine']}"))
        + page.lines("BTF", safe(btf["problem"] or f"{btf['path']}{size}"))
        + page.lines("libbpf", safe(libbpf["problem"] or library))
    )


def _cgroups(page: _Page, cgroups: dict[str, Any]) -> str:
    if cgroups["problem"]:
        return page.lines("cgroups", safe(cgroups["problem"]))
    mounts = [
        f"{','.join(each['controllers']) or each['name']:12} id {each['id']:<3} {each['mount']}"
        for each in cgroups["hierarchies"]
    ]
    head = (
        f"{cgroups['layout']}; {cgroups['owners']} names owners unless --hierarchy says otherwise"
    )
    return page.lines("cgroups", head) + "".join(f"{'':{LABEL}}{safe(line)}\n" for line in mounts)


def _runtimes(page: _Page, runtimes: list[dict[str, Any]]) -> str:
    texts = [f"{each['name']}: {', '.join(each['paths'])}" for each in runtimes]
    return page.lines("runtimes", *(texts or ["none found"]))


def _rights(page: _Page, rights: list[dict[str, Any]]) -> str:
    held = " ".join(each["capability"] for each in rights if each["held"])
    lacking = [f"no {each['capability']}: {each['cost']}" for each in rights if not each["held"]]
    return page.lines("rights", *([held] if held else []), *lacking)


def _command(page: _Page, command: dict[str, Any]) -> str:
    state = "can run" if command["runs"] else "can't run"
    text = f"\ncgnet {command['name']} {state}\n"
    text += page.lines("  missing", *map(safe, command["missing"]))
    for part, way in command["uses"].items():
        reasons = [
            f"not {each['way']}: {each['why']}"
            for each in command["refused"]
            if each["part"] == part
        ]
        if way is not None:
            text += page.lines(f"  {part.replace('_', ' ')}", way, *map(safe, reasons))
    return text + _stages(page, command["stages"])


def _stages(page: _Page, stages: list[dict[str, Any]]) -> str:
    """Return the stages by function, and those that aren't seen once for each reason."""
    seen: dict[str, list[str]] = {}
    for each in stages:
        way = f"{each['way']}: " if each["way"] else "not seen: "
        shown = f"{each['stage']} ({each['function']})" if each["way"] else each["stage"]
        why = "" if each["way"] else f" ({each['why']})"
        seen.setdefault(f"{way}|{why}", []).append(shown)
    texts = [key.replace("|", ", ".join(names)) for key, names in seen.items()]
    return page.lines("  stages", *map(safe, texts)) if texts else ""


def _features(page: _Page, features: list[dict[str, Any]], told: set[str]) -> str:
    """Return a table of features; a reason in ``told`` isn't repeated."""
    width = max(len(each["name"]) for each in features) + 1
    below = width + 6
    text = f"\n{'FEATURE':{width}}WORKS FOR\n"
    for each in features:
        label = f"{each['name']:{width}}{WORKS[each['works']]:5} "
        text += page.lines(label, each["purpose"], labels=below, indent="")
        if each["why"] and each["why"] not in told:
            why, cost = f"why not: {safe(each['why'])}", f"costs: {each['cost']}"
            text += page.lines("", why, cost, labels=below)
    return text


def report_text(report: dict[str, Any], width: int = WIDTH) -> str:
    """Return the report of docs/doctor.md as text, for a terminal of ``width`` columns."""
    page = _Page(width)
    told = {reason for command in report["commands"] for reason in command["missing"]}
    return "".join(
        (
            _host(page, report),
            _cgroups(page, report["cgroups"]),
            _runtimes(page, report["runtimes"]),
            _rights(page, report["rights"]),
            *(_command(page, command) for command in report["commands"]),
            _features(page, report["features"], told),
        )
    )
