# SPDX-License-Identifier: BSD-2-Clause
"""The other ends of connections that are open when a command begins to trace."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from cgnet.commands.sockets.ends import pairs
from cgnet.commands.sockets.load import load
from cgnet.errors import CgnetError
from cgnet.records._layouts import SocketsConfig
from cgnet.run.command import Command

if TYPE_CHECKING:
    from pathlib import Path

    from cgnet.filters.selection import Filters

NOT_LISTED = (
    "connections from before the start have a peer by address or by --names alone: sockets can't be "
    "listed here ({why})"
)


class KnowsOpenEnds(Command):
    """A command whose records may be of connections from before the start."""

    def open_before(
        self, filters: Filters, btf: Path | None
    ) -> tuple[list[tuple[bytes, bytes]], list[str]]:
        """Return struct flow of open ends, and the owners of their other ends; and remarks."""
        try:
            loaded = load(filters, SocketsConfig(), btf)
        except CgnetError as error:
            return [], [NOT_LISTED.format(why=error)]
        with loaded.obj:
            loaded.walk.begin()
            batches = loaded.walk.records(listeners=False, connections=True, everything=True)
            found = pairs(chain.from_iterable(batches))
            return [(mine.flow, other.owner) for mine, other in found], []
