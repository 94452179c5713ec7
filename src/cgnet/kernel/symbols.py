# SPDX-License-Identifier: BSD-2-Clause
"""Names that the running kernel gives to numbers: its functions, and the enums of its BTF."""

from __future__ import annotations

import re
import struct
import sys
from bisect import bisect_right
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cgnet.errors import LibbpfError
from cgnet.kernel.btf import KERNEL_BTF, enum_of_kernel, enum_of_module
from cgnet.records._layouts import DROP_EVENT, ToldReason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cgnet.loader import Map

KALLSYMS = Path("/proc/kallsyms")
MODULES = Path("/sys/kernel/btf")
UNRESOLVED = "?"
# How a tracepoint gets from the code that frees a packet to a program.
TO_US = re.compile(
    r"(__)?(bpf_get_stack|bpf_trace_run|bpf_trampoline_|kprobe_|arch_ftrace_|ftrace_|traceiter_|bpf_trace_|bpf_prog_|bpf_dispatcher_|kfree_skb|consume_skb|sk_skb_reason_drop|skb_release)"
)
STACK_KEY = 4  # bytes
STACK_BYTES = next(each.size for each in DROP_EVENT.members if each.name == "stack")
CODE = frozenset("tTwW")  # of nm(1): functions
# What the tracepoint kfree_skb may name in the place of who called it: see location.bpf.h.
FREEING = ("kfree_skb", "kfree_skb_reason", "kfree_skb_list", "kfree_skb_list_reason")
ARGUMENTS_WHERE_WHOLE = 4  # of the tracepoint, in v6.11: by then gcc may not split these
# Of SYNs that a full accept queue swallows: the kernel has a reason for it from 6.18 on, or none.
OVERFLOW, OVERFLOW_NUMBER = "TCP_LISTEN_OVERFLOW", 0xFFFFFFFE
SYN_QUEUE = "TCP_SYN_QUEUE_FULL"  # no kernel has one
SUBSYSTEM_SHIFT = 16  # include/net/dropreason.h: SKB_DROP_REASON_SUBSYS_SHIFT
REASON, SUBSYSTEM = "SKB_DROP_REASON_", "SKB_DROP_REASON_SUBSYS_"
# Enums of reasons that modules add, and how their enumerators begin.
MODULE_REASONS = {"ovs_drop_reason": "OVS_DROP_", "mac80211_drop_reason": "RX_DROP_"}


class Function(NamedTuple):
    """A function's code: from ``start`` to what follows it."""

    start: int
    end: int
    name: str
    module: str  # "" of the kernel itself


class Kallsyms:
    """The kernel's functions by address. Without CAP_SYSLOG the kernel shows none."""

    def __init__(self, path: Path = KALLSYMS) -> None:
        """Read the file, some 0.2 s. A file that isn't there has no functions."""
        found: list[tuple[int, str, str]] = []
        edges: set[int] = set()
        try:
            text = path.read_text()
        except OSError:
            text = ""
        for line in text.splitlines():
            address, kind, name, *module = line.split()
            number = int(address, 16)
            if kind in CODE and number:
                found.append((number, name, module[0].strip("[]") if module else ""))
            edges.add(number)
        found.sort()
        self._found = found
        self._starts = [start for start, _, _ in found]
        self._edges = sorted(edges)

    def parts(self, names: Collection[str]) -> Iterator[Function]:
        """Yield the code of functions, in order: also what the compiler split off, as in NAME.part.0."""
        for start, each, module in self._found:
            if each.partition(".")[0] in names:
                yield Function(start, self._end(start), each, module)

    @property
    def readable(self) -> bool:
        """Whether there are functions at all."""
        return bool(self._found)

    def _end(self, start: int) -> int:
        at = bisect_right(self._edges, start)
        return self._edges[at] if at < len(self._edges) else start + 1

    def function(self, address: int) -> Function | None:
        """Return the function that an address lies in, or None."""
        at = bisect_right(self._starts, address) - 1
        if at < 0:
            return None
        start, name, module = self._found[at]
        end = self._end(start)
        return Function(start, end, name, module) if address < end else None

    @lru_cache(maxsize=16384)  # noqa: B019 - there is one, for the whole run
    def text(self, address: int) -> str:
        """Return "function+0x1f [module]", or "?". Never the address."""
        found = self.function(address)
        if not found:
            return UNRESOLVED
        module = f" [{found.module}]" if found.module else ""
        return f"{found.name}+{address - found.start:#x}{module}"

    def named(self, name: str) -> Function | None:
        """Return the first function of a name, or None."""
        for start, each, module in self._found:
            if each == name:
                return Function(start, self._end(start), name, module)
        return None

    def ranges(self, names: tuple[str, ...]) -> list[int]:
        """Return struct code_range of each function: zeros of one that isn't there."""
        found = [self.named(name) for name in names]
        return [bound for each in found for bound in ((each.start, each.end) if each else (0, 0))]


class Symbols:
    """The running kernel's names. What isn't asked for isn't read."""

    def __init__(self, btf: Path | None = None) -> None:
        """``btf`` replaces the kernel's own."""
        self._btf = btf or KERNEL_BTF

    @cached_property
    def functions(self) -> Kallsyms:
        """The kernel's functions."""
        return Kallsyms()

    def code(self, address: int) -> str:
        """Return "function+0x1f [module]", or "?"."""
        return self.functions.text(address)

    def freeing_code(self, arguments: int) -> list[int]:
        """Return struct code_range of what the tracepoint kfree_skb may take for its own caller.

        ``arguments`` are the tracepoint's. Where they tell that nothing does, no symbol is read.
        """
        if arguments >= ARGUMENTS_WHERE_WHOLE:
            return [0] * (2 * len(FREEING))
        return self.functions.ranges(FREEING)

    def stack(self, stacks: Map, number: int) -> tuple[str, ...]:
        """Return a stack that the kernel side kept by a number, innermost first; () if it's lost."""
        try:
            raw = stacks.lookup(number.to_bytes(STACK_KEY, sys.byteorder), STACK_BYTES)
        except LibbpfError:  # no room for it, or another one in its place
            return ()
        return self.frames(struct.unpack(f"={STACK_BYTES // 8}Q", raw))

    @lru_cache(maxsize=4096)  # noqa: B019 - there is one, for the whole run
    def frames(self, addresses: tuple[int, ...]) -> tuple[str, ...]:
        """Return a stack's functions from the one that dropped a packet on, innermost first.

        What is further in is the way to the program that looks; a kernel 5.4 may tell no more than that.
        """
        frames = [self.code(address) for address in addresses if address]
        names = [frame.partition("+")[0] for frame in frames]
        first = 0
        while first < len(names) and (names[first] == UNRESOLVED or TO_US.match(names[first])):
            first += 1
        return tuple(frames[first:])

    @cached_property
    def _rst_reasons(self) -> dict[int, str]:
        return enum_of_kernel("sk_rst_reason", self._btf)

    def rst_reason(self, reason: int) -> str:
        """Return why a reset was sent, as the kernel calls it, or the number."""
        return self._rst_reasons.get(reason, str(reason)).removeprefix("SK_RST_REASON_")

    @cached_property
    def drop_reasons(self) -> dict[int, str]:
        """The kernel's own reasons for drops, without their prefix; none where it tells none."""
        names = enum_of_kernel("skb_drop_reason", self._btf)
        skipped = (f"{REASON}MAX", f"{REASON}SUBSYS_MASK", "SKB_NOT_DROPPED_YET")
        return {
            number: name.removeprefix(REASON if name.startswith(REASON) else "SKB_")
            for number, name in names.items()
            if name not in skipped
        }

    @cached_property
    def overflow(self) -> int:
        """The number for SYNs that a full accept queue swallowed."""
        named = {name: number for number, name in self.drop_reasons.items()}
        return named.get(OVERFLOW, OVERFLOW_NUMBER)

    @property
    def swallowed(self) -> dict[int, str]:
        """The reasons of SYNs that a full queue of their listener swallowed."""
        return {self.overflow: OVERFLOW, int(ToldReason.REASON_SYN_QUEUE_FULL): SYN_QUEUE}

    @cached_property
    def _subsystems(self) -> dict[int, str]:
        return enum_of_kernel("skb_drop_reason_subsys", self._btf)

    @cached_property
    def _module_reasons(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for enum, prefix in MODULE_REASONS.items():
            for number, name in enum_of_module(enum, MODULES).items():
                found[number] = name.removeprefix(prefix)
        return found

    def drop_reason(self, reason: int) -> str | None:
        """Return a reason's name: the kernel's own, a module's, or the subsystem and a number.

        None where the kernel tells no reasons.
        """
        if reason == OVERFLOW_NUMBER:
            return OVERFLOW
        if reason == ToldReason.REASON_SYN_QUEUE_FULL:
            return SYN_QUEUE
        if not self.drop_reasons:
            return None
        subsystem = reason >> SUBSYSTEM_SHIFT
        if not subsystem:
            return self.drop_reasons.get(reason, str(reason))
        name = self._subsystems.get(subsystem, str(subsystem)).removeprefix(SUBSYSTEM)
        number = reason & ((1 << SUBSYSTEM_SHIFT) - 1)
        return f"{name}_{self._module_reasons.get(reason, str(number))}"
