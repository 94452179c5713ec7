# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet drop``: TCP packets that the kernel dropped, with owner, place and reason."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cgnet.commands import COMMANDS
from cgnet.commands.drop.config import STATES, SYN_PROGRAMS, DropOptions, settings
from cgnet.commands.drop.record import drop_groups
from cgnet.commands.sockets.before import KnowsOpenEnds
from cgnet.counting.keys import OF_DROPS, OF_SOCKETS
from cgnet.errors import UsageError
from cgnet.filters import absent
from cgnet.findings.class_rule import rule_of_class
from cgnet.findings.drop_explain import Diagnosis
from cgnet.findings.drop_reasons import BY_REASON, CLASSES
from cgnet.findings.evidence import has_netlink
from cgnet.kernel.btf import KERNEL_BTF
from cgnet.kernel.symbols import Symbols
from cgnet.kernel.variants import SOCKETS, STACKS
from cgnet.options import completion
from cgnet.options.groups import DEFAULT_BY_OF_DROPS, select
from cgnet.options.shared import collect, common_of_packets, counted, counting_drops, far_end
from cgnet.options.types import OneOf
from cgnet.owners.record_fields import owner_group
from cgnet.records._layouts import DROP, DROP_EVENT, FLOW, SessionSignal
from cgnet.records.conn_id import conn_id_field
from cgnet.records.schema import FLOW_GROUPS
from cgnet.run.output import tell
from cgnet.run.session import Session

if TYPE_CHECKING:
    from cgnet.counting.counts import Counting
    from cgnet.kernel.variants import Variant
    from cgnet.loader import Object
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records._layouts import Packable
    from cgnet.records.fields import AnyField
    from cgnet.records.schema import CountSchema, Schema

SYMBOLS = Symbols()


class Drop(KnowsOpenEnds):
    """Dropped packets, with owner, place and reason; with advice if requested."""

    name = object = "drop"
    signals = SessionSignal.SIGNAL_DROP
    jobs = (*SOCKETS, STACKS)
    layouts = (DROP_EVENT, FLOW, DROP)
    packet_end = DROP_EVENT.slice("end")
    role = DROP_EVENT.slice("drop.role")
    table = (
        "time", "owner", "dev", "direction", "saddr", "sport", "daddr", "dport", "tcp_flags", "len",
        "reason", "reason_class", "location",
    )  # fmt: skip
    wide = (
        "time", "owner", "pid", "comm", "netns", "dev", "direction", "saddr", "sport", "daddr", "dport",
        "tcp_flags", "tcp_state", "len", "payload", "reason", "reason_class", "owner_source", "cgroup",
        "stack",
    )  # fmt: skip
    first = ("owner", "reason", "daddr", "dport", "saddr")
    then = ("time", "sport", "tcp_flags", "dev", "reason_class", "direction", "location", "len")

    def __init__(self, symbols: Symbols = SYMBOLS, asked: DropOptions | None = None) -> None:
        """``symbols`` name reasons and functions."""
        self._symbols, self._asked = symbols, asked
        self._diagnosis = Diagnosis(explain=bool(asked and asked.explain))
        self._config: list[Packable] = []
        self._maps: dict[str, dict[bytes, bytes]] = {}
        if asked:
            config, self._maps = settings(symbols, asked)
            self._config = [config, *rule_of_class(symbols, asked.btf or KERNEL_BTF)]

    def fields(self, names: CgroupNames, runtimes: Runtimes) -> list[AnyField]:
        """Return the groups of a record's fields, in order."""
        return [
            owner_group(names, runtimes), *FLOW_GROUPS, *drop_groups(self._symbols),
            conn_id_field(self.packet_end, self.conn_key),
        ]  # fmt: skip

    def config(self, _chosen: list[Variant]) -> list[Packable]:
        """Return the constants that select drops, and the rule of classes."""
        return self._config

    def maps(self) -> dict[str, dict[bytes, bytes]]:
        """Return the classes by reason and function, and the selected reasons and devices."""
        return self._maps

    def left_out(self) -> frozenset[str]:
        """Return the costly programs of --syn-drops unless requested."""
        return frozenset() if self._asked and self._asked.syn_drops else SYN_PROGRAMS

    def on_started(self, obj: Object) -> None:
        """Print the devices that don't exist yet, and save the counters at the start."""
        for line in absent.of_devices(self._asked.devices) if self._asked else ():
            tell(line)
        self._diagnosis.begin(obj)

    def on_rows(self, schema: Schema | CountSchema, rows: list[Any]) -> None:
        """Remember the kinds of drops that are printed."""
        self._diagnosis.see(schema, rows)

    def notices(self) -> list[dict[str, Any]]:
        """Return the advice on drops since the last call."""
        return self._diagnosis.records()

    def notice_text(self, row: dict[str, Any]) -> str:
        """Return advice as text for people."""
        return self._diagnosis.text(row)

    def summary(self, obj: Object) -> dict[str, int]:
        """Return the number of benign drops."""
        return self._diagnosis.summary(obj)


COMMAND = Drop()


EPILOG = """\b
Examples:
  cgnet drop                                   every drop that may be a fault
  cgnet drop --container web                   a container's
  cgnet drop -i 5 --by container,reason        counts, every five seconds
  cgnet drop --reason-class firewall,configuration
  cgnet drop --reason NO_SOCKET --dport 8080
  cgnet drop --explain --container web         and what to do
  cgnet drop --stacks folded --duration 60 | flamegraph.pl > drops.svg

Repeats of an option are OR, different options are AND; a value that begins with ! excludes.

\b
Addresses and ports are the packet's own, source first. CLASS says what a reason means: benign (with
ordinary traffic; --all shows them), peer, application, resource, firewall, configuration.
"""


def _list_reasons(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if not value or ctx.resilient_parsing:
        return
    for name in Symbols().drop_reasons.values():
        kind = BY_REASON.get(name)
        click.echo(f"{name:32} {CLASSES[kind] if kind else '-'}")
    ctx.exit()


def _check_explained(counting: Counting | None) -> None:
    """Raise UsageError if the keys of counting lack those that advice needs."""
    if counting and not {"reason", "netns"} <= {key.name for key in counting.keys}:
        raise UsageError("--explain: with --count it takes --by with reason and netns")
    if not has_netlink():
        tell(
            f"pyroute2 isn't installed ({_to_get_pyroute2()}): --explain without accept queues and "
            "qdiscs"
        )


def _to_get_pyroute2() -> str:
    """Return how to install pyroute2 for this Python."""
    if sys.prefix != sys.base_prefix:
        return f"{sys.prefix}/bin/pip install pyroute2"
    return "the package python3-pyroute2 has it"


def _fold(values: dict[str, Any]) -> None:
    """Count by stacks, and print them for flame graphs. Raises UsageError."""
    if values["output"] != "table" or values["fields"]:
        raise UsageError("--stacks folded: has an output of its own, without -o and --fields")
    values["by"] = values["by"] or ("container,stack",)
    if "stack" not in ",".join(values["by"]).split(","):
        raise UsageError("--stacks folded: --by without stack")
    values |= {"count": True, "output": "folded"}


@click.command(name="drop", help=COMMANDS["drop"].help, epilog=EPILOG)
@select(
    "reason", "REASON", "Dropped for this reason, as in NO_SOCKET; see --list-reasons.",
    completion.reasons,
)  # fmt: skip
@select(
    "reason-class", "CLASS", f"Reasons of this class: {', '.join(list(CLASSES.values())[1:])}.",
    completion.listed(list(CLASSES.values())[1:]),
)  # fmt: skip
@select(
    "state", "STATE", "The socket is in this TCP state, as in LISTEN.", completion.listed(STATES)
)
@select("dev", "NAME", "At this network device.", completion.devices)
@click.option("--all", "every", is_flag=True, help="Also drops that come with ordinary traffic.")
@click.option(
    "--stacks",
    type=OneOf(["each", "folded", "none"]),
    default="each",
    show_default=True,
    help="each: with every row. folded: counted in the kernel, printed as flame-graph tools read "
    "them. none: no stacks, which are most of the cost of a drop.",
)
@click.option(
    "--syn-drops",
    is_flag=True,
    help="Also SYNs that a full queue of their listener swallowed, which the kernel doesn't call "
    "drops. Each packet that the host frees costs some 40 ns more.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Also advice for each reason, with evidence from where the packets were dropped. It looks "
    "at every network namespace at the start.",
)
@click.option(
    "--list-reasons", is_flag=True, is_eager=True, expose_value=False, callback=_list_reasons,
    help="Show this kernel's reasons, and their classes.",
)  # fmt: skip
@counting_drops
@far_end
@common_of_packets
def command(**values: Any) -> int:
    """Run the command."""
    symbols = Symbols(values["btf"] and Path(values["btf"]))
    if values["stacks"] == "folded":
        _fold(values)
    counting = counted(values, DEFAULT_BY_OF_DROPS, (*OF_SOCKETS, *OF_DROPS))
    if counting:
        counting = counting._replace(symbols=symbols)
    if values["explain"]:
        _check_explained(counting)
    own = set(DropOptions._fields) - {"btf"}
    asked = DropOptions(**{name: values.pop(name) for name in own}, btf=values["btf"])
    options = collect(values, counting, both_roles=True)
    return Session(Drop(symbols, asked), options).run()
