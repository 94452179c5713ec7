# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet doctor``: abilities of cgnet on this host, the commands' ways, and reasons."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cgnet import __version__
from cgnet.commands import COMMANDS
from cgnet.commands.doctor import host
from cgnet.commands.doctor.report import WIDTH, report_text
from cgnet.errors import ExitStatus, NotPermittedError
from cgnet.kernel import variants
from cgnet.kernel.btf import find_kernel_btf
from cgnet.kernel.probes import FEATURES, Answer
from cgnet.options.types import OneOf
from cgnet.records.schema import SCHEMA
from cgnet.render.layout import terminal_width

if TYPE_CHECKING:
    from cgnet.run.command import Command

EPILOG = """\b
Examples:
  cgnet doctor                              what works here, and what doesn't
  cgnet doctor -o json | jq .commands       for a machine
  cgnet doctor --btf vmlinux.btf            checked with the --btf that the commands will get

\b
It loads test programs and removes them again; nothing on the host changes.
It exits with 4 if a command can't run.
"""
STDOUT = 1


def command_names() -> list[str]:
    """Return the names of the other commands."""
    return sorted(COMMANDS.keys() - {"doctor"})


def _no_trial(libbpf: dict[str, Any]) -> str | None:
    """Return why nothing can be tried; None if programs can be tried."""
    try:
        variants.require_capabilities()
    except NotPermittedError as error:
        return f"not permitted: {error}"
    problem: str | None = libbpf["problem"]
    return problem


def _features(no_trial: str | None) -> list[dict[str, Any]]:
    found = []
    for feature in FEATURES:
        answer = Answer(None, no_trial) if no_trial else variants.works(feature)
        found.append(
            {
                "name": feature.name,
                "works": answer.ok,
                "why": answer.why or None,
                "purpose": feature.purpose,
                "cost": feature.cost,
            }
        )
    return found


def _stages(command: Command | None) -> list[dict[str, Any]]:
    """Return the stages of a command that are functions, and the way to see each on this kernel."""
    plan = variants.choose(command.stages() if command else (), thoroughly=True)
    return [
        {
            "stage": each.job.name,
            "function": each.variant and each.variant.function,
            "way": each.variant and each.variant.code,
            "why": each.why or None,
        }
        for each in plan.values()
    ]


def _command(name: str, no_trial: str | None, problems: list[str]) -> dict[str, Any]:
    """Return a command's variants; ``problems`` are those of all commands."""
    module = import_module(COMMANDS[name].module)
    command: Command | None = getattr(module, "COMMAND", None)
    jobs = command.jobs if command else getattr(module, "JOBS", ())
    missing = [*problems] if jobs else []
    uses: dict[str, str | None] = {job.name: None for job in jobs}
    refused = []
    plan = {} if no_trial else variants.choose(jobs, thoroughly=True)
    for part, chosen in plan.items():
        reasons = [
            {"part": part, "way": each.name, "why": why.removeprefix(f"{each.name}: ")}
            for each, why in chosen.refused
        ]
        if chosen.variant:
            uses[part] = chosen.variant.name
        else:
            missing += [f"{each['part']}: {each['way']}: {each['why']}" for each in reasons]
        refused += reasons
    return {
        "name": name, "runs": not missing, "missing": missing, "uses": uses, "refused": refused,
        "stages": [] if no_trial else _stages(command),
    }  # fmt: skip


def examine(btf: Path | None) -> dict[str, Any]:
    """Return the report of docs/doctor.md. Raises CgnetError if cgnet itself is incomplete."""
    found = {"btf": host.btf(btf), "libbpf": host.libbpf(), "cgroups": host.cgroups()}
    no_trial = _no_trial(found["libbpf"])
    problems = [part["problem"] for part in (found["btf"], found["cgroups"]) if part["problem"]]
    problems = [*([no_trial] if no_trial else []), *problems]
    return {
        "schema": SCHEMA,
        "type": "doctor",
        "version": __version__,
        "kernel": host.kernel(),
        **found,
        "runtimes": host.runtimes(),
        "rights": host.rights(),
        "commands": [_command(name, no_trial, problems) for name in command_names()],
        "features": _features(no_trial),
    }


@click.command(name="doctor", help=COMMANDS["doctor"].help, epilog=EPILOG)
@click.option(
    "-o",
    "--output",
    type=OneOf(["table", "json"]),
    default="table",
    show_default=True,
    help="json is one object, described in docs/doctor.md.",
)
@click.option(
    "--btf",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    default=find_kernel_btf,
    help="BTF of this kernel, where it has none itself.",
)
def command(output: str, btf: Path | None) -> ExitStatus:
    """Run the command."""
    report = examine(btf)
    width = terminal_width() if os.isatty(STDOUT) else WIDTH
    text = f"{json.dumps(report)}\n" if output == "json" else report_text(report, width)
    click.echo(text.encode(errors="backslashreplace"), nl=False)
    every = all(each["runs"] for each in report["commands"])
    return ExitStatus.DONE if every else ExitStatus.UNSUPPORTED
