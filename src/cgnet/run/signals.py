# SPDX-License-Identifier: BSD-2-Clause
"""The signals of a session: several commands' programs, over one ledger where this kernel can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.counting.sums import MAX_OWNERS
from cgnet.errors import UnsupportedError
from cgnet.run.owner_names import OwnerNames
from cgnet.run.shared_ledger import Part, SharedLedger
from cgnet.run.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import ExitStack

    from cgnet.counting.sums import OwnerSums
    from cgnet.filters.selection import Filters
    from cgnet.records.schema import Clock
    from cgnet.run.command import Command, Options
    from cgnet.run.losses import Loss


SIDE_BY_SIDE = "the signals run side by side, each with a ledger of its own"


class Source:
    """A command, and the filters that its programs apply."""

    def __init__(self, command: Command, filters: Filters) -> None:
        """Nothing is loaded yet. No filters that select nothing but a hierarchy mean everybody."""
        self.command, self.filters = command, filters


class Signals:
    """Several signals. A flood of one takes no room of another's records."""

    def __init__(
        self,
        sources: Sequence[Source],
        options: Options,
        clock: Clock,
        max_owners: int = MAX_OWNERS,
    ) -> None:
        """Prepare them; the filters of the first source name owners. Loads nothing yet.

        Over one ledger they are summed up by owner, too, those beyond ``max_owners`` together.
        """
        chosen = sources[0].filters
        parts = [Part(each.command, each.filters is not chosen, sums=True) for each in sources]
        self._session = SharedLedger(parts, chosen, options, max_owners)
        self.names = OwnerNames(chosen)
        self._names: dict[Filters, OwnerNames] = {sources[0].filters: self.names}
        for each in sources:
            if each.filters not in self._names:
                self._names[each.filters] = OwnerNames(each.filters, self.names)
        self.all = [
            Signal(each.command, options, each.filters, self._names[each.filters], clock)
            for each in sources
        ]

        self.over_one_ledger = False
        self._is_asked_for = bool(options.hook or options.transport)

    def close(self) -> None:
        """Close the readers of names; load()'s ``cleanup`` closes the programs."""
        self.names.close()

    def load(self, cleanup: ExitStack, stopped: Callable[[], bool]) -> list[str]:
        """Load and attach the programs of all signals; return remarks. Raises StoppedError."""
        try:
            remarks = self._session.load(cleanup, stopped)
        except UnsupportedError as error:
            remarks = self._load_side_by_side(cleanup, stopped)
            if not self._is_asked_for:
                remarks.append(f"{SIDE_BY_SIDE}: {error}")
        else:
            self.over_one_ledger = True
            self.names.publish(self._session.obj)
            for each in self.all:
                each.share(self._session)
        for each in self.all:
            each.command.on_started(each.obj)
        self.names.say_unmatched()
        self.names.say_absent()
        return remarks

    def _load_side_by_side(self, cleanup: ExitStack, stopped: Callable[[], bool]) -> list[str]:
        remarks: dict[str, None] = {}
        for each in self.all:
            remarks |= dict.fromkeys(each.load(cleanup, stopped))
            each.names.publish(each.obj)
        return list(remarks)

    def read(self) -> Iterator[tuple[Signal, list[bytes]]]:
        """Yield the records that each signal has now."""
        for each in self.all:
            records = each.records(each.read())
            if records:
                each.printing(records)
                yield each, records

    def follow(self) -> None:
        """Follow changes of cgroups and containers, for some milliseconds at most."""
        for each in self._names.values():
            each.follow()

    def aggregates(self) -> dict[int, OwnerSums] | None:
        """Return the sums since the last call, by cgroup; None where the signals run side by side."""
        return self._session.aggregates() if self.over_one_ledger else None

    def losses(self) -> list[tuple[Signal, Loss]]:
        """Return the losses since the last call."""
        return [(each, loss) for each in self.all for loss in each.losses.look(each.obj)]

    def detach(self) -> None:
        """Detach the programs; their records can still be read."""
        for each in self.all:
            each.obj.detach()

    @property
    def runs(self) -> dict[str, Any]:
        """Hook, transport and ledger in use, of the signal that has the slowest; and the objects."""
        slowest = min((each.runs for each in self.all), key=lambda runs: runs["hook"])
        return {**slowest, "objects": 1 if self.over_one_ledger else len(self.all)}
