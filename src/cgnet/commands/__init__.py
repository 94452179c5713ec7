# SPDX-License-Identifier: BSD-2-Clause
"""The subcommands by name: each is a module, or a package where it has more than one file.

A command's module has ``command`` (a click command). Commands that trace also have ``COMMAND``, or
``JOBS`` if they are made of several.
"""

from typing import NamedTuple


class Entry(NamedTuple):
    """The module of a subcommand's click command, and its line in ``cgnet --help``.

    The module is imported only when the command runs: ``--help`` must be fast.
    """

    module: str
    help: str


COMMANDS = {
    "why": Entry(
        "cgnet.commands.why.command",
        "Which TCP connections fail, are slow or lose packets, and why.",
    ),
    "connect": Entry(
        "cgnet.commands.connect.command",
        "Every outbound TCP connection attempt, and its result.",
    ),
    "connlat": Entry(
        "cgnet.commands.connlat", "How long TCP connections take to be established, or to fail."
    ),
    "rtt": Entry(
        "cgnet.commands.rtt", "Round-trip times of TCP connections: histograms, or the slow ones."
    ),
    "life": Entry(
        "cgnet.commands.life",
        "Each TCP connection's life: how long, how much, who ended it and how.",
    ),
    "drop": Entry(
        "cgnet.commands.drop.command", "TCP packets that the kernel dropped: whose, where, and why."
    ),
    "retrans": Entry(
        "cgnet.commands.retrans", "Each TCP segment and SYN that was sent again: whose, and why."
    ),
    "trace": Entry(
        "cgnet.commands.trace.command",
        "Each packet's way through the stack, with the delay of every stage.",
    ),
    "sockets": Entry(
        "cgnet.commands.sockets.command",
        "What TCP is open, by container, over all network namespaces.",
    ),
    "containers": Entry(
        "cgnet.commands.containers",
        "The containers that run on this host: names, pods, cgroups, namespaces.",
    ),
    "doctor": Entry(
        "cgnet.commands.doctor.command",
        "Check which commands work on this host, by which hooks, and what is missing.",
    ),
}
