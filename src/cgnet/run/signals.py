# SPDX-License-Identifier: BSD-2-Clause
"""The signals of a session: several commands' programs side by side, each with a ring of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.run.owner_names import OwnerNames
from cgnet.run.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import ExitStack

    from cgnet.filters.selection import Filters
    from cgnet.records.schema import Clock
    from cgnet.run.command import Command, Options
    from cgnet.run.losses import Loss


class Source:
    """A command, and the filters that its programs apply."""

    def __init__(self, command: Command, filters: Filters) -> None:
        """Nothing is loaded yet."""
        self.command, self.filters = command, filters


class Signals:
    """Several signals. A flood of one takes no room of another's records."""

    def __init__(self, sources: Sequence[Source], options: Options, clock: Clock) -> None:
        """Prepare them; the filters of the first source name owners. Loads nothing yet."""
        self.names = OwnerNames(sources[0].filters)
        self._names: dict[Filters, OwnerNames] = {sources[0].filters: self.names}
        for each in sources:
            if each.filters not in self._names:
                self._names[each.filters] = OwnerNames(each.filters, self.names)
        self.all = [
            Signal(each.command, options, each.filters, self._names[each.filters], clock)
            for each in sources
        ]

    def close(self) -> None:
        """Close the readers of names; load()'s ``cleanup`` closes the programs."""
        self.names.close()

    def load(self, cleanup: ExitStack, stopped: Callable[[], bool]) -> list[str]:
        """Load and attach the programs of all signals; return remarks. Raises StoppedError."""
        remarks: dict[str, None] = {}
        for each in self.all:
            remarks |= dict.fromkeys(each.load(cleanup, stopped))
            each.names.publish(each.obj)
            each.command.on_started(each.obj)
        self.names.say_unmatched()
        self.names.say_absent()
        return list(remarks)

    def read(self) -> Iterator[tuple[Signal, list[bytes]]]:
        """Yield the records that each signal has now."""
        for each in self.all:
            records = each.records(each.obj.ring("ring").consume())
            if records:
                each.printing(records)
                yield each, records

    def follow(self) -> None:
        """Follow changes of cgroups and containers, for some milliseconds at most."""
        for each in self._names.values():
            each.follow()

    def losses(self) -> list[tuple[Signal, Loss]]:
        """Return the losses since the last call."""
        return [(each, loss) for each in self.all for loss in each.losses.look(each.obj)]

    def detach(self) -> None:
        """Detach the programs; their records can still be read."""
        for each in self.all:
            each.obj.detach()

    @property
    def runs(self) -> dict[str, Any]:
        """Hook, transport and ledger in use: of the signal that has the slowest."""
        return min((each.runs for each in self.all), key=lambda runs: runs["hook"])
