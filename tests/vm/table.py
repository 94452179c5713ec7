# SPDX-License-Identifier: BSD-2-Clause
"""From results of guests to the table of docs/kernels.md, between two marks."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from ratios import BESIDE, RATIOS, kept, ratios
from subset import LAYOUTS, PARTS, TESTS

if TYPE_CHECKING:
    from collections.abc import Iterable

BEGIN, END = "<!-- written by make test-vm: begin -->", "<!-- end -->"
HEADER = ("kernel", "cgroups", "command", "hook", "transport", "ledger", "result")
COSTS = ("kernel", "what", *RATIOS)
KEPT = ("kernel", *(f"`{way}`" for way in BESIDE))
ABOUT_COSTS = """\
What the programs take for a connection with some data, each way beside the others in one guest: by the
kernel's statistics, net of what an empty program takes by these. Where the guest is emulated, only
ratios tell something; the first costs more if it is above 1. `-`: one of the two doesn't run there. Of
`--sync-errors` and `--functions` only the programs at functions count, and not the kernel's way to
them, such as a kprobe's trap. The other tools are this host's packages: tcpconnect and tcprtt of
libbpf-tools, bpftrace's tcpconnect.bt, beside cgnet by the better hook of the guest. tcpconnect tells
who connects to where, but not how that ended and how long it took."""
ABOUT_KEPT = """\
What is left of the rate of such connections, one after the other, beside those who follow each packet
of each, output to /dev/null: the median of three, each between two without. pwru is Debian trixie's,
with the filter `tcp`, addresses and relative times, and the best way to functions that it finds.
`-`: it doesn't run there."""
# A command's store of owners, by the kind of hook.
LEDGERS = {"connect": "slots", "connlat": "slots"}
HOOKS = ("tp_btf", "raw_tp", "fexit", "fentry", "kprobe.multi", "kprobe", "tracepoint")
FUNCTIONS = {"fentry", "kprobe.multi", "kprobe"}
NONE = "-"
SHOWN = 3  # tests that failed, by name

Result = dict[str, Any]
Row = tuple[str, ...]  # of HEADER, COSTS or KEPT: they differ in length


class Cell(NamedTuple):
    """What tests of a kind have in common."""

    command: str
    hook: str
    transport: str


def cell_of(test: Result) -> Cell:
    """Return where a test belongs."""
    name = test["test"].removeprefix("tests/kernel/")
    # By the list; a result from before a test left it, by the file's name.
    listed = chain.from_iterable(part.items() for part in PARTS.values())
    by_list = (each for each, tests in listed if name.startswith(tests))
    by_file = (each for each in TESTS if name.rpartition("/")[2].startswith(f"test_{each}"))
    command = next(chain(by_list, by_file), "?")
    words = name.partition("[")[2].rstrip("]").split("-")
    hook = next((each for each in HOOKS if each in words), NONE)
    return Cell(command, hook, test["transport"] if hook != NONE else NONE)


def ledger_of(cell: Cell) -> str:
    """Return where owners are kept."""
    if cell.hook == NONE or (cell.command == "trace" and cell.hook in FUNCTIONS):
        return NONE  # or whichever is the best there
    return LEDGERS.get(cell.command, "storage") if cell.hook == "tp_btf" else "hash"


def verdict(tests: Iterable[Result]) -> str:
    """Say how tests ended, in one cell."""
    tests = list(tests)
    count = Counter(test["outcome"] for test in tests)
    said = []
    if count["failed"]:
        names = [short(test) for test in tests if test["outcome"] == "failed"]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        said.append(f"**{len(names)} failed**: {', '.join(names[:SHOWN])}{more}")
    if count["passed"]:
        said.append(f"{count['passed']} passed")
    reasons = sorted({test["why"] for test in tests if test["outcome"] == "skipped"})
    said += [f"{count['skipped']} not there: {', '.join(reasons)}"] * bool(reasons)
    return escape("; ".join(said))


def short(test: Result) -> str:
    return f"`{test['test'].partition('::')[2]}`"


def escape(text: str) -> str:
    """Let a text stand in a cell of Markdown."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def rows(found: Result) -> list[Row]:
    """Return the rows of one guest."""
    place = (found["release"], found["layout"])
    missing = (*place, "all", NONE, NONE, NONE, f"not there: {escape(found['lacks'])}")
    lacks = [missing] if found["lacks"] else []
    if lacks and not found["tests"]:
        return lacks
    cells: dict[Cell, list[Result]] = {}
    for test in found["tests"]:
        cells.setdefault(cell_of(test), []).append(test)
    made = [
        (*place, cell.command, cell.hook, cell.transport, ledger_of(cell), verdict(tests))
        for cell, tests in cells.items()
    ]
    made += [(*place, *row) for row in refused(found["doctor"] or {"commands": []})]
    places = ([*TESTS, "?"], [*HOOKS, NONE])
    return lacks + sorted(
        made,
        key=lambda row: (
            *(at.index(name) for at, name in zip(places, row[2:4], strict=True)),
            row[4],
        ),
    )


def refused(doctor: Result) -> list[Row]:
    """Return the rows of what `cgnet doctor` says isn't there."""
    found = []
    for command in doctor["commands"]:
        for each in command["refused"]:
            if each["part"] == "hook" and command["name"] in TESTS:
                cell = Cell(command["name"], each["way"], NONE)
                why = f"not there: {escape(each['why'])}"
                found.append((cell.command, cell.hook, NONE, ledger_of(cell), why))
    return found


def joined(parts: list[Result]) -> Result:
    """Return what the boots of one kernel and layout found, as if it were one."""
    return {
        **parts[0],
        "lacks": "; ".join({part["lacks"]: None for part in parts if part["lacks"]}),
        "doctor": next((part["doctor"] for part in parts if part["doctor"]), None),
        "tests": [test for part in parts for test in part["tests"]],
        "costs": next((part["costs"] for part in parts if part.get("costs")), {}),
        "rates": next((part["rates"] for part in parts if part.get("rates")), {}),
    }


def told_before(document: str) -> list[Row]:
    """Return the rows of the tables that a document has."""
    made = document.partition(BEGIN)[2].partition(END)[0]
    lines = (line for line in made.splitlines() if line.startswith("| "))
    found = (tuple(line.removeprefix("| ").removesuffix(" |").split(" | ")) for line in lines)
    return [row for row in found if row not in (HEADER, COSTS, KEPT)]


def rows_of_kernel(name: str, guests: dict[str, Result], before: list[Row]) -> list[Row]:
    """Return what is told of a line of kernels, such as "6.1" or "7.x", in all tables.

    ``guests`` are what booted, by layout. Of other layouts, and of costs and rates if none was
    measured, that stays which was told ``before``.
    """
    release = f"{name}.".replace("x.", "")
    stays = [row for row in before if row[0].startswith(release)]
    made: list[Row] = []
    for layout in LAYOUTS:
        if layout in guests:
            made += rows(guests[layout])
        else:
            made += [row for row in stays if len(row) == len(HEADER) and row[1] == layout]
    for header, rows_of in ((COSTS, ratios), (KEPT, kept)):
        new = [row for found in guests.values() for row in rows_of(found)]
        made += new or [row for row in stays if len(row) == len(header)]
    return made


def table(told: Iterable[Row]) -> str:
    """Return the table of what works, and those of what it costs, as far as a guest has told."""
    told = list(told)
    made = []
    for about, header in (("", HEADER), (ABOUT_COSTS, COSTS), (ABOUT_KEPT, KEPT)):
        found = [row for row in told if len(row) == len(header)]
        if found or not about:
            made.append(f"{about}\n\n{lines_of(header, found)}".lstrip())
    return "\n".join(made)


def lines_of(header: Row, lines: list[Row]) -> str:
    """Return a table of Markdown."""
    all_lines = [header, tuple("---" for _ in header), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in all_lines)


def put_between_marks(text: str, made: str) -> str:
    """Return a document with its table made anew. Raises ValueError if it has no marks."""
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"no {BEGIN!r} … {END!r}")
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"
