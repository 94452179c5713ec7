# SPDX-License-Identifier: BSD-2-Clause
"""The constants of the rule in drop/class.bpf.h: which drops are benign, and others' classes.

``drop`` and ``trace`` share the rule, so that both classify a packet alike.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cgnet.findings.drop_reasons import (  # fmt: skip
    BENIGN_FUNCTIONS,
    BY_FUNCTION,
    BY_REASON,
    RECEIVING,
    RESETTING,
    UNSPECIFIED,
)
from cgnet.kernel.btf import tracepoint_arguments
from cgnet.records._layouts import (
    CGNET_FUNCTION_CLASSES,
    ClassConfig,
    CodeRange,
    FunctionClasses,
    PacketConfig,
    u32,
)

if TYPE_CHECKING:
    from pathlib import Path

    from cgnet.kernel.symbols import Symbols
    from cgnet.records._layouts import Packable

FEW_ARGUMENTS, MAX_ARGUMENTS = 2, 4  # of kfree_skb


def number_of(name: str, reasons: dict[int, str]) -> int:
    """Return a reason's number; an unused number if the kernel doesn't have the reason."""
    return next((number for number, each in reasons.items() if each == name), 2**32 - 1)


def function_classes(symbols: Symbols) -> bytes:
    """Return struct function_classes: BY_FUNCTION by the addresses of the running kernel."""
    found = symbols.functions.parts(BY_FUNCTION)[:CGNET_FUNCTION_CLASSES]
    return FunctionClasses(
        tuple(CodeRange(each.start, each.end) for each in found),
        tuple(BY_FUNCTION[each.name.partition(".")[0]] for each in found),
    ).pack()


def reason_classes(symbols: Symbols) -> dict[bytes, bytes]:
    """Return the entries of the map drop_classes: BY_REASON by the numbers of the running kernel."""
    named = symbols.drop_reasons | symbols.swallowed
    return {
        u32(number): u32(BY_REASON[name]) for number, name in named.items() if name in BY_REASON
    }


def rule_of_class(symbols: Symbols, btf: Path) -> list[Packable]:
    """Return the constants of the rule that classifies drops, and of packets that are freed."""
    arguments = tracepoint_arguments("kfree_skb", btf)
    known = symbols.drop_reasons
    used = min(max(arguments, FEW_ARGUMENTS), MAX_ARGUMENTS) if known else FEW_ARGUMENTS
    packets = PacketConfig(drop_arguments=used, freeing_code=symbols.freeing_code(arguments))
    classes = ClassConfig(
        not_specified=number_of(UNSPECIFIED, known),
        flags_reason=number_of("TCP_FLAGS", known),
        paws_reason=number_of("TCP_RFC7323_PAWS", known),
        close_reason=number_of("TCP_CLOSE", known),
        filter_reason=number_of("SOCKET_FILTER", known),
        no_socket_reason=number_of("NO_SOCKET", known),
        overflow_reason=symbols.overflow,
        start_ns=time.monotonic_ns(),
        benign_code=symbols.functions.ranges(BENIGN_FUNCTIONS),
        receiving_code=symbols.functions.ranges(RECEIVING),
        resetting_code=symbols.functions.ranges(RESETTING),
    )
    return [packets, classes]
