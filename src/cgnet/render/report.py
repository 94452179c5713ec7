# SPDX-License-Identifier: BSD-2-Clause
"""What ``cgnet doctor`` found out, as plain text for people."""

from __future__ import annotations

import textwrap
from typing import Any

from cgnet.render.text import safe

LABEL = 14  # cells, of the first column
WIDTH = 110
WORKS = {True: "yes", False: "no", None: "?"}


def _lines(label: str, *texts: str) -> str:
    """Return paragraphs beside a label; what is longer than a line goes on below itself."""
    lines = [
        line
        for text in texts
        for line in textwrap.wrap(
            text,
            WIDTH - LABEL,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
    labels = [label, *[""] * len(lines)]
    return "".join(
        f"{left:{LABEL}}{line}".rstrip() + "\n" for left, line in zip(labels, lines, strict=False)
    )


def _host(report: dict[str, Any]) -> str:
    kernel, btf, libbpf = report["kernel"], report["btf"], report["libbpf"]
    size = f", {btf['size'] / 1e6:.1f} MB" if btf["size"] is not None else ""
    library = f"{libbpf['version']}, {safe(libbpf['path'] or 'built in')}"
    return (
        _lines("cgnet", safe(report["version"]))
        + _lines("kernel", safe(f"{kernel['release']} {kernel['machine']}"))
        + _lines("BTF", safe(btf["problem"] or f"{btf['path']}{size}"))
        + _lines("libbpf", safe(libbpf["problem"] or library))
    )


def _cgroups(cgroups: dict[str, Any]) -> str:
    if cgroups["problem"]:
        return _lines("cgroups", safe(cgroups["problem"]))
    mounts = [
        f"{','.join(each['controllers']) or each['name']:12} id {each['id']:<3} {each['mount']}"
        for each in cgroups["hierarchies"]
    ]
    head = (
        f"{cgroups['layout']}; {cgroups['owners']} names owners unless --hierarchy says otherwise"
    )
    return _lines("cgroups", head) + "".join(f"{'':{LABEL}}{safe(line)}\n" for line in mounts)


def _runtimes(runtimes: list[dict[str, Any]]) -> str:
    texts = [f"{each['name']}: {', '.join(each['paths'])}" for each in runtimes]
    return _lines("runtimes", *(texts or ["none found"]))


def _rights(rights: list[dict[str, Any]]) -> str:
    held = " ".join(each["capability"] for each in rights if each["held"])
    lacking = [f"no {each['capability']}: {each['cost']}" for each in rights if not each["held"]]
    return _lines("rights", *([held] if held else []), *lacking)


def _command(command: dict[str, Any]) -> str:
    state = "can run" if command["runs"] else "can't run"
    text = f"\ncgnet {command['name']} {state}\n"
    text += _lines("  missing", *map(safe, command["missing"]))
    for part, way in command["uses"].items():
        reasons = [
            f"not {each['way']}: {each['why']}"
            for each in command["refused"]
            if each["part"] == part
        ]
        if way is not None:
            text += _lines(f"  {part.replace('_', ' ')}", way, *map(safe, reasons))
    return text + _stages(command["stages"])


def _stages(stages: list[dict[str, Any]]) -> str:
    """Show which stages are seen, by which functions; those that aren't, once for each reason."""
    seen: dict[str, list[str]] = {}
    for each in stages:
        way = f"{each['way']}: " if each["way"] else "not seen: "
        shown = f"{each['stage']} ({each['function']})" if each["way"] else each["stage"]
        why = "" if each["way"] else f" ({each['why']})"
        seen.setdefault(f"{way}|{why}", []).append(shown)
    texts = [key.replace("|", ", ".join(names)) for key, names in seen.items()]
    return _lines("  stages", *map(safe, texts)) if texts else ""


def _features(features: list[dict[str, Any]], told: set[str]) -> str:
    """Show a table of features; a reason that was ``told`` already isn't repeated."""
    width = max(len(each["name"]) for each in features) + 1
    text = f"\n{'FEATURE':{width}}WORKS FOR\n"
    for each in features:
        text += f"{each['name']:{width}}{WORKS[each['works']]:5} {each['purpose']}\n"
        if each["why"] and each["why"] not in told:
            text += f"{'':{width + 6}}why not: {safe(each['why'])}\n"
            text += f"{'':{width + 6}}costs: {each['cost']}\n"
    return text


def report_text(report: dict[str, Any]) -> str:
    """Return the report of docs/doctor.md as lines of text."""
    told = {reason for command in report["commands"] for reason in command["missing"]}
    return "".join(
        (
            _host(report),
            _cgroups(report["cgroups"]),
            _runtimes(report["runtimes"]),
            _rights(report["rights"]),
            *map(_command, report["commands"]),
            _features(report["features"], told),
        )
    )
