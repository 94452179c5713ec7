# SPDX-License-Identifier: BSD-2-Clause
"""Write the manual pages, section 8: one for cgnet, one for each command, from what --help knows.

click-man of PyPI would do it for a group whose commands are registered; ours are found when they are
wanted, and it leaves out the epilogs, which have the examples.

    gen_man.py FOLDER       SOURCE_DATE_EPOCH sets the pages' date
"""

from __future__ import annotations

import os
import sys
import textwrap
from datetime import UTC, datetime
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cgnet import __version__
from cgnet.cli import cli
from cgnet.errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_STATUSES = {
    ExitStatus.DONE: "Done; also after Ctrl-C, SIGTERM or a closed pipe.",
    ExitStatus.FAILED: "Failed.",
    ExitStatus.USAGE: "Wrong usage.",
    ExitStatus.NOT_PERMITTED: "Not permitted; the message names the capability.",
    ExitStatus.UNSUPPORTED: "This kernel, or its libbpf, lacks something; the message says what.",
    ExitStatus.EVENTS_LOST: "Events were lost, and --strict was given.",
    ExitStatus.FOUND: "why found something of the severity that --fail-on names, or worse.",
}
ENVIRONMENT = (
    (
        "CGNET_LIBBPF",
        (
            "Another libbpf than cgnet's own or the system's: an absolute path without links, of a file "
            "and folders that only root can write."
        ),
    ),
    ("NO_COLOR", "If set: no colours on a terminal."),
)


def escaped(text: str) -> str:
    """Return text as roff takes it for text: no escapes, no requests, hyphens that can be copied."""
    text = (
        text.replace("\\", "\\(rs").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha")
    )
    text = text.replace("~", "\\(ti").replace("`", "\\(ga")
    return f"\\&{text}" if text.startswith(".") else text


def filled(text: str) -> list[str]:
    """Return text as lines of roff, which fills them to the reader's width."""
    lines = textwrap.wrap(text, 76, break_long_words=False, break_on_hyphens=False)
    return [escaped(line) for line in lines]


def paragraphs(text: str) -> Iterator[str]:
    """Yield roff for click's help text, where a block that begins with a backspace keeps its lines."""
    for block in cleandoc(text).split("\n\n"):
        lines = block.strip("\n").splitlines()
        kept = bool(lines) and lines[0].strip() == "\b"
        lines = lines[1:] if kept else lines
        if not lines:
            continue
        if kept and lines[0].endswith(":") and all(line.startswith("  ") for line in lines[1:]):
            yield f".SH {escaped(lines[0][:-1].partition(',')[0]).upper()}"
            yield from (".nf", *(escaped(line.strip()) for line in lines[1:]), ".fi")
        else:
            yield from (".PP", *filled(" ".join(line.strip() for line in lines)))


def section(title: str, entries: list[tuple[str, str]]) -> Iterator[str]:
    """Yield a list of terms and what they are."""
    yield f".SH {title}"
    for term, text in entries:
        yield from (".TP", f"\\fB{escaped(term)}\\fR", *filled(text))


def page(context: click.Context, names: list[str]) -> Iterator[str]:
    """Yield the lines of the page of a command; ``names`` has all pages."""
    command, name = context.command, context.command_path.replace(" ", "-")
    stamp = int(os.environ.get("SOURCE_DATE_EPOCH", "0")) or int(datetime.now(UTC).timestamp())
    day = datetime.fromtimestamp(stamp, UTC).date().isoformat()
    text = (command.help or "").strip()
    yield '.\\" SPDX-License-Identifier: BSD-2-Clause'
    yield f'.TH {name.upper()} 8 {day} "cgnet {__version__}" "System Administration"'
    short = text.rstrip(".")
    if not short[:2].isupper():
        short = short[:1].lower() + short[1:]
    yield from (".SH NAME", f"{escaped(name)} \\- {escaped(short)}", ".SH SYNOPSIS")
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\\fB{escaped(context.command_path)}\\fR {escaped(usage)}"
    yield from (".SH DESCRIPTION", *filled(text))
    records = [each.get_help_record(context) for each in command.get_params(context)]
    yield from section("OPTIONS", [each for each in records if each])
    if isinstance(command, click.Group):
        found = [
            (each, command.get_command(context, each)) for each in command.list_commands(context)
        ]
        yield from section("COMMANDS", [(each, one.help or "") for each, one in found if one])
    yield from paragraphs(command.epilog or "")
    statuses = [(str(int(status)), said) for status, said in EXIT_STATUSES.items()]
    yield from section("EXIT STATUS", statuses)
    yield from section("ENVIRONMENT", list(ENVIRONMENT))
    others = [f"\\fB{escaped(each)}\\fR(8)" for each in names if each != name]
    yield from (".SH SEE ALSO", ",\n".join(others))


def main(folder: Path) -> None:
    """Write all pages to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    top = click.Context(cli, info_name="cgnet", **cli.context_settings)
    commands = {each: cli.get_command(top, each) for each in cli.list_commands(top)}
    contexts = [top] + [
        click.Context(command, top, each, **command.context_settings)
        for each, command in commands.items()
        if command
    ]
    names = [each.command_path.replace(" ", "-") for each in contexts]
    for name, context in zip(names, contexts, strict=True):
        text = "\n".join(page(context, names)) + "\n"
        (folder / f"{name}.8").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
