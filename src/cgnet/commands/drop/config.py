# SPDX-License-Identifier: BSD-2-Clause
"""The options of ``cgnet drop``, and their settings in drop.bpf.c: constants and maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.filters.values import as_bits, choose
from cgnet.findings.class_rule import function_classes, reason_classes
from cgnet.findings.drop_reasons import CLASSES, numbers_of
from cgnet.kernel.btf import KERNEL_BTF, tracepoint_arguments
from cgnet.records._layouts import CGNET_DEV_LEN, DropClass, DropConfig, u32
from cgnet.records.schema import TCP_STATES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cgnet.kernel.symbols import Symbols

STATES = {name: number for number, name in enumerate(TCP_STATES) if name}
SYN_PROGRAMS = frozenset({"syn_drop", "syn_seed"})


class DropOptions(NamedTuple):
    """The options that only ``cgnet drop`` has."""

    reason: tuple[str, ...] = ()
    reason_class: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    every: bool = False  # also drops in ordinary traffic
    stacks: str = "each"
    syn_drops: bool = False
    explain: bool = False
    btf: Path | None = None

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of devices to include, which may appear later."""
        return tuple(name for name in self.dev if not name.startswith("!"))


def _device(text: str) -> Iterator[bytes]:
    name = text.encode(errors="surrogateescape")
    if not name or len(name) >= CGNET_DEV_LEN:
        raise ValueError(f"no device's name; it has 1 to {CGNET_DEV_LEN - 1} bytes")
    yield name.ljust(CGNET_DEV_LEN, b"\0")


def _reasons(symbols: Symbols, given: tuple[str, ...], *, syn_drops: bool) -> Any:
    known = dict(symbols.drop_reasons)
    if syn_drops:
        known |= symbols.swallowed

    def read(text: str) -> Iterator[int]:
        yield from numbers_of(tuple(text.split(",")), known)

    return choose("--reason", given, read)


def settings(
    symbols: Symbols, asked: DropOptions
) -> tuple[DropConfig, dict[str, dict[bytes, bytes]]]:
    """Return the constants, and entries of maps."""
    reasons = _reasons(symbols, asked.reason, syn_drops=asked.syn_drops)
    devices = choose("--dev", asked.dev, _device)
    names = {name: number for number, name in CLASSES.items() if number != DropClass.DROP_UNKNOWN}
    config = DropConfig(
        benign=int(asked.every or "benign" in ",".join(asked.reason_class)),
        stacks=int(asked.stacks == "each"),
        by_reason=reasons.use,
        by_class=as_bits("--reason-class", asked.reason_class, names),
        by_state=as_bits("--state", asked.state, STATES),
        by_dev=devices.use,
        syn_drops=int(asked.syn_drops),
        consume_arguments=tracepoint_arguments("consume_skb", asked.btf or KERNEL_BTF),
    )
    maps = {
        "drop_classes": reason_classes(symbols),
        "function_classes": {u32(0): function_classes(symbols)},
        "selected_reasons": {u32(number): u32(use) for number, use in reasons.uses().items()},
        "selected_devices": {name: u32(use) for name, use in devices.uses().items()},
    }
    return config, maps
