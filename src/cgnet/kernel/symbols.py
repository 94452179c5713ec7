# SPDX-License-Identifier: BSD-2-Clause
"""Names of the running kernel's functions, and of enum values in its BTF."""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_right
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cgnet.errors import LibbpfError
from cgnet.kernel.btf import KERNEL_BTF, enum_of_kernel, enum_of_module
from cgnet.records._layouts import DROP_EVENT, CodeRange, ToldReason, u32

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cgnet.loader import Map

KALLSYMS = Path("/proc/kallsyms")
DIGITS = 16  # of an address there
BLOCK = 1 << 20  # bytes
MODULES = Path("/sys/kernel/btf")
UNRESOLVED = "?"
# Functions between the code that frees a packet and the BPF program at the tracepoint.
TO_US = re.compile(
    r"(__)?(bpf_get_stack|bpf_trace_run|bpf_trampoline_|kprobe_|arch_ftrace_|ftrace_|traceiter_|bpf_trace_|bpf_prog_|bpf_dispatcher_|kfree_skb|consume_skb|sk_skb_reason_drop|skb_release)"
)
STACK = DROP_EVENT.part("stack")
CODE = frozenset("tTwW")  # nm(1): functions
# Functions that the tracepoint kfree_skb may report in place of their caller: see location.bpf.h.
FREEING = ("kfree_skb", "kfree_skb_reason", "kfree_skb_list", "kfree_skb_list_reason")
ARGUMENTS_WHERE_WHOLE = 4  # of the tracepoint, in v6.11: since then gcc may not split these
# The reason for SYNs dropped at a full accept queue, and the number used where the kernel has no
# such reason, before 6.18.
OVERFLOW, OVERFLOW_NUMBER = "TCP_LISTEN_OVERFLOW", 0xFFFFFFFE
SYN_QUEUE = "TCP_SYN_QUEUE_FULL"  # no kernel has this reason
SUBSYSTEM_SHIFT = 16  # include/net/dropreason.h: SKB_DROP_REASON_SUBSYS_SHIFT
REASON, SUBSYSTEM = "SKB_DROP_REASON_", "SKB_DROP_REASON_SUBSYS_"
# Enums of modules' drop reasons, and the prefixes of their enumerators.
MODULE_REASONS = {"ovs_drop_reason": "OVS_DROP_", "mac80211_drop_reason": "RX_DROP_"}


class Function(NamedTuple):
    """A function's code, from ``start`` up to the next symbol at ``end``."""

    start: int
    end: int
    name: str
    module: str  # "" for the kernel itself


class Kallsyms:
    """The kernel's functions by address. Without CAP_SYSLOG the kernel shows none.

    It keeps the file's bytes and the sorted addresses, and parses a line when it is needed:
    objects for all of a hundred thousand symbols would take 40 MB.
    """

    def __init__(self, path: Path = KALLSYMS) -> None:
        """Read the file, in some 0.1 s. An unreadable file has no functions."""
        self._text = b""
        with suppress(OSError):
            self._text = path.read_bytes()
        addresses = array("Q")
        for lines in self._blocks():
            digits = b"".join([line[:DIGITS] for line in lines])
            addresses.frombytes(bytes.fromhex(digits.decode()))
        if sys.byteorder == "little":
            addresses.byteswap()
        self._edges = array("Q", sorted(addresses))

    def _blocks(self) -> Iterator[list[bytes]]:
        """Yield the lines, some at a time: each is an object."""
        begin = 0
        while begin < len(self._text):
            end = self._text.find(b"\n", begin + BLOCK) + 1 or len(self._text)
            yield self._text[begin:end].splitlines()
            begin = end

    def _function(self, at: int) -> Function | None:
        """Return the function of the line at a position; None if it has data, or no address."""
        begin, end = self._text.rfind(b"\n", 0, at) + 1, self._text.find(b"\n", at)
        line = self._text[begin : end if end >= 0 else None]
        address, kind, name, *module = line.decode().split()
        start = int(address, 16)
        if kind not in CODE or not start:
            return None
        return Function(start, self._end(start), name, module[0].strip("[]") if module else "")

    def _at(self, start: int) -> Iterator[Function]:
        """Yield the functions that start at an address."""
        digits = b"%016x " % start
        at = self._text.find(digits)
        while at >= 0:
            if found := self._function(at):
                yield found
            at = self._text.find(digits, at + 1)

    def parts(self, names: Collection[str]) -> list[Function]:
        """Return the named functions in order, with parts split off by gcc (NAME.part.0)."""
        anyone = "|".join(map(re.escape, names)).encode()
        matches = re.finditer(rb" \w (?:%b)(?=[.\t\n])" % anyone, self._text)
        found = (self._function(match.start()) for match in matches)
        return sorted(each for each in found if each)

    def _end(self, start: int) -> int:
        at = bisect_right(self._edges, start)
        return self._edges[at] if at < len(self._edges) else start + 1

    def function(self, address: int) -> Function | None:
        """Return the function that contains an address, or None."""
        at = bisect_right(self._edges, address) - 1
        if at < 0:
            return None
        found = [each for each in self._at(self._edges[at]) if address < each.end]
        return max(found, default=None)

    @lru_cache(maxsize=16384)  # noqa: B019 - there is one instance, for the whole run
    def text(self, address: int) -> str:
        """Return "function+0x1f [module]", or "?"; never the address."""
        found = self.function(address)
        if not found:
            return UNRESOLVED
        module = f" [{found.module}]" if found.module else ""
        return f"{found.name}+{address - found.start:#x}{module}"

    def ranges(self, names: tuple[str, ...]) -> tuple[CodeRange, ...]:
        """Return the code of each function that is there, of several with a name the first one."""
        found: dict[str, Function] = {}
        for each in self.parts(names):
            found.setdefault(each.name, each)
        return tuple(CodeRange(*found[name][:2]) for name in names if name in found)


class Symbols:
    """The running kernel's names, read on first use."""

    def __init__(self, btf: Path | None = None) -> None:
        """``btf`` replaces the kernel's own BTF."""
        self._btf = btf or KERNEL_BTF

    @cached_property
    def functions(self) -> Kallsyms:
        """The kernel's functions."""
        return Kallsyms()

    def code(self, address: int) -> str:
        """Return "function+0x1f [module]", or "?"."""
        return self.functions.text(address)

    def freeing_code(self, arguments: int) -> tuple[CodeRange, ...]:
        """Return the code of FREEING.

        ``arguments`` is the number of the tracepoint's arguments. If it shows that the tracepoint
        reports none of them as its caller, return () and read no symbols.
        """
        if arguments >= ARGUMENTS_WHERE_WHOLE:
            return ()
        return self.functions.ranges(FREEING)

    def stack(self, stacks: Map, number: int) -> tuple[str, ...]:
        """Return a stack by its number in a map, innermost function first; () if it is lost."""
        try:
            raw = stacks.lookup(u32(number), STACK.size)
        except LibbpfError:  # no room for it, or replaced by another one
            return ()
        return self.frames(STACK.unpack(raw))

    @lru_cache(maxsize=4096)  # noqa: B019 - there is one instance, for the whole run
    def frames(self, addresses: tuple[int, ...]) -> tuple[str, ...]:
        """Return a stack's functions from the one that dropped the packet on, innermost first.

        The frames before it lead to the BPF program; a kernel 5.4 may report only those.
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
        """Return the kernel's name of the reason for a reset, or the number."""
        return self._rst_reasons.get(reason, str(reason)).removeprefix("SK_RST_REASON_")

    @cached_property
    def drop_reasons(self) -> dict[int, str]:
        """The kernel's own drop reasons by number, without prefix; empty if it reports none."""
        names = enum_of_kernel("skb_drop_reason", self._btf)
        skipped = (f"{REASON}MAX", f"{REASON}SUBSYS_MASK", "SKB_NOT_DROPPED_YET")
        return {
            number: name.removeprefix(REASON if name.startswith(REASON) else "SKB_")
            for number, name in names.items()
            if name not in skipped
        }

    @cached_property
    def overflow(self) -> int:
        """The number of the reason for SYNs dropped at a full accept queue."""
        named = {name: number for number, name in self.drop_reasons.items()}
        return named.get(OVERFLOW, OVERFLOW_NUMBER)

    @property
    def swallowed(self) -> dict[int, str]:
        """The reasons for SYNs dropped at a full queue of their listener, by number."""
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

        None if the kernel reports no reasons.
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
