# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet containers``: the running containers of this host, and how cgnet knows them."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

import click

from cgnet.commands import COMMANDS
from cgnet.options import completion
from cgnet.options.types import OneOf
from cgnet.owners.cgroups import default_hierarchy, hierarchies, hierarchy_named
from cgnet.owners.runtimes import PROC, Runtimes
from cgnet.owners.runtimes.listing import FIELDS, containers
from cgnet.records.schema import SCHEMA, Clock
from cgnet.render import FORMATS
from cgnet.render.layout import terminal_width
from cgnet.render.listing import SHORT_ID, csv_text, json_text, table_text
from cgnet.run.output import tell

EPILOG = """\b
Examples:
  cgnet containers                          names, pods, images, processes
  cgnet containers -o wide                  also units, cgroups, labels, how each was found
  cgnet containers -o json | jq -r 'select(.pod == "web-0").cgroup'
  cgnet containers --all                    also pods' sandboxes, and unconfirmed ones

\b
FOUND says what confirms a container: "state" is its runtime's files, "socket" its runtime's daemon,
"path" the place or form of its cgroup, if only root can have made it. cgnet reads no files and asks
no daemons that users own, so nothing confirms rootless containers.
"""
TYPE = "container"
HEAD = ("schema", "type", "time", "ts_ns")


def _pod(row: dict[str, Any]) -> str | None:
    """Return a pod as --pod takes it."""
    pod, namespace = row["pod"], row["pod_namespace"]
    return f"{namespace}/{pod}" if pod and namespace else pod


def _id(row: dict[str, Any]) -> str | None:
    found: str | None = row["container_id"]
    return found and found[:SHORT_ID]


COLUMNS = {
    "container": lambda row: row["container"],
    "id": _id,
    "runtime": lambda row: row["runtime"],
    "pod": _pod,
    "image": lambda row: row["image"],
    "pid": lambda row: row["pid"],
    "netns": lambda row: row["netns"],
}
WIDE = {
    **COLUMNS,
    "qos": lambda row: row["qos"],
    "unit": lambda row: row["unit"],
    "found": lambda row: row["found"],
    "cgroup": lambda row: row["cgroup"],
    "labels": lambda row: row["labels"],
}
FIRST = ("container", "pod", "id", "pid", "image")  # the columns of a narrow terminal
COLUMNS_OF_ALL = {**COLUMNS, "found": WIDE["found"], "cgroup": WIDE["cgroup"]}


def _wanted(row: dict[str, Any]) -> bool:
    return row["found"] is not None and not row["sandbox"]


def _text(output: str, rows: list[dict[str, Any]], *, every: bool, header: bool) -> str:
    if output == "json":
        return json_text(rows)
    if output == "csv":
        return csv_text(rows, (*HEAD, *FIELDS), header=header)
    if output == "wide":
        return table_text(rows, WIDE, header=header)
    width = terminal_width() if sys.stdout.isatty() else None
    columns = COLUMNS_OF_ALL if every else COLUMNS
    return table_text(rows, columns, header=header, width=width, first=FIRST)


@click.command(name="containers", help=COMMANDS["containers"].help, epilog=EPILOG)
@click.option(
    "-o",
    "--output",
    type=OneOf(FORMATS),
    default="table",
    show_default=True,
    help="json is one object a line, described in docs/containers.md; csv has the same fields.",
)
@click.option("-a", "--all", "every", is_flag=True, help="Also sandboxes, and unconfirmed ones.")
@click.option("--no-header", is_flag=True, help="Leave out the line of headers.")
@click.option(
    "--hierarchy",
    metavar="NAME",
    shell_complete=completion.hierarchies,
    help="The cgroup hierarchy that names containers: v2, or a v1 controller.",
)
def command(output: str, hierarchy: str | None, *, every: bool, no_header: bool) -> None:
    """Run the command."""
    mounted = hierarchies()
    where = hierarchy_named(hierarchy, mounted) if hierarchy else default_hierarchy(mounted)
    ts_ns = time.monotonic_ns()
    head = dict(zip(HEAD, (SCHEMA, TYPE, Clock().text(ts_ns), ts_ns), strict=True))
    runtimes = Runtimes(hierarchy=where)
    try:
        find = partial(runtimes.find, present=runtimes.present())
        found = [{**head, **row} for row in containers(where, PROC, find)]
    finally:
        runtimes.close()
    rows = [row for row in found if every or _wanted(row)]
    rows.sort(key=lambda row: (row["pod_namespace"] or "", row["pod"] or "", row["cgroup"]))
    text = _text(output, rows, every=every, header=not no_header)
    click.echo(text.encode(errors="backslashreplace"), nl=False)
    unconfirmed = sum(row["found"] is None for row in found)
    if where.note:
        tell(where.note)
    if unconfirmed and not every:
        tell(
            f"{unconfirmed} cgroups look like containers, and no runtime's state that may be read "
            "here confirms them; --all shows them"
        )
