# SPDX-License-Identifier: BSD-2-Clause
"""``--container``, ``--pod``, ``--pod-namespace``, ``--unit``: owners by names on the host.

The kernel side knows cgroups, but no names. User space writes to a map whether each cgroup is
wanted. Records of a cgroup that isn't in the map, such as a new one, pass with a mark, and are
decided about here. A runtime may write a container's name after its first connection: then its
records wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cgnet.errors import LibbpfError
from cgnet.filters.absent import CONTAINER, POD, POD_NAMESPACE, UNIT, What
from cgnet.filters.values import Choice, choose
from cgnet.owners import cgroups
from cgnet.records._layouts import FilterUse, Owner, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cgnet.loader import Map
    from cgnet.owners.cgroups import CgroupNames, Hierarchy
    from cgnet.owners.runtimes import Known, Runtimes

T = TypeVar("T")
NAMED_CGROUPS = 32768  # entries of the map; other cgroups are decided about here, each time
MIN_ID = 4  # characters of an id's prefix


class Pod(NamedTuple):
    """A pod; ``namespace`` is None for any."""

    namespace: str | None
    name: str


def _name(text: str) -> Iterator[str]:
    if not text:
        raise ValueError("no name")
    yield text


def _pod(text: str) -> Iterator[Pod]:
    namespace, slash, name = text.rpartition("/")
    if not name or (slash and not namespace):
        raise ValueError("no pod; give NAME or NAMESPACE/NAME")
    yield Pod(namespace or None, name)


def _unit(text: str) -> Iterator[str]:
    for name in _name(text):
        yield name if "." in name else f"{name}.service"


def _is_container(known: Known, wanted: str) -> bool:
    if any(found.name == wanted for found in known.inside):
        return True
    return len(wanted) >= MIN_ID and any(each.startswith(wanted) for each in known.ids)


def _is_pod(known: Known, wanted: Pod) -> bool:
    facts = known.facts
    return facts.pod == wanted.name and wanted.namespace in (None, facts.pod_namespace)


class NameFilter:
    """All values of these options."""

    def __init__(
        self,
        container: Iterable[str] = (),
        pod: Iterable[str] = (),
        pod_namespace: Iterable[str] = (),
        unit: Iterable[str] = (),
    ) -> None:
        """Parse the values. Raises UsageError for a malformed one."""
        self._tests: list[tuple[Choice[Any], Callable[[Known, Any], bool]]] = []
        self._whats: list[What] = []  # of each test
        self._add(CONTAINER, choose("--container", container, _name), _is_container)
        self._add(POD, choose("--pod", pod, _pod), _is_pod)
        namespaces = choose("--pod-namespace", pod_namespace, _name)
        self._add(
            POD_NAMESPACE, namespaces, lambda known, wanted: known.facts.pod_namespace == wanted
        )
        units = choose("--unit", unit, _unit)
        self._add(UNIT, units, lambda known, wanted: known.facts.unit == wanted)

    def _add(self, what: What, choice: Choice[T], test: Callable[[Known, T], bool]) -> None:
        if choice.use:
            self._whats.append(what)
            self._tests.append((choice, test))

    def included(self) -> Iterator[tuple[What, tuple[Any, ...], Callable[[Known, Any], bool]]]:
        """Yield the included values of each option, with the function that matches a cgroup."""
        for what, (choice, test) in zip(self._whats, self._tests, strict=True):
            yield what, choice.includes, test

    @property
    def use(self) -> int:
        """The bits of enum filter_use."""
        bits = 0
        for choice, _ in self._tests:
            bits |= choice.use
        return bits

    def matches(self, known: Known) -> bool:
        """Return whether a cgroup is wanted, by the knowledge about it."""
        for choice, test in self._tests:
            if any(test(known, value) for value in choice.excludes):
                return False
            if choice.includes and not any(test(known, value) for value in choice.includes):
                return False
        return True

    def decide(self, known: Known) -> bool | None:
        """Return whether a cgroup is wanted; None if more is expected to be known soon."""
        return None if known.expected else self.matches(known)

    def fill(self, named: Map, hierarchy: Hierarchy, runtimes: Runtimes) -> None:
        """Write the decisions about existing cgroups to the map."""
        if not self.use:
            return
        for path in cgroups.subtree(hierarchy.mount):
            wanted = self.decide(runtimes.of(hierarchy.told_path(path)))
            if wanted is None:
                continue
            try:
                tell(named, cgroups.cgroup_id(path), wanted=wanted)
            except OSError:
                continue  # removed meanwhile

    def settle(self, named: Map, owner: bytes, names: CgroupNames, runtimes: Runtimes) -> None:
        """Write the decision about the cgroup of an owner (struct owner), if there is one."""
        its = Owner.unpack(owner)
        path = names.path(its.hierarchy, its.cgroup_id)
        wanted = self.decide(runtimes.of(path)) if path is not None else None
        if wanted is not None:
            tell(named, its.cgroup_id, wanted=wanted)

    def forget(self, named: Map, cgroup: int) -> None:
        """Delete the entry of a removed cgroup."""
        if self.use:
            named.discard(u64(cgroup))


def tell(named: Map, cgroup: int, *, wanted: bool) -> None:
    """Write a decision to the map. If there is no room, the kernel side keeps asking."""
    use = FilterUse.FILTER_INCLUDES if wanted else FilterUse.FILTER_EXCLUDES
    try:
        named.update(u64(cgroup), u32(use))
    except LibbpfError:
        return
