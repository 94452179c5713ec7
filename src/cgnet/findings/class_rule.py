# SPDX-License-Identifier: BSD-2-Clause
"""The constants of the rule in drop/class.bpf.h: which drops are benign, and others' classes.

``drop`` and ``trace`` share the rule, so that both classify a packet alike.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cgnet.findings.drop_reasons import (  # fmt: skip
    BENIGN_FUNCTIONS,
    BY_FUNCTION,
    RECEIVING,
    RESETTING,
    UNSPECIFIED,
)
from cgnet.kernel.btf import tracepoint_arguments
from cgnet.records._layouts import CGNET_FUNCTION_CLASSES, FUNCTION_CLASSES

if TYPE_CHECKING:
    from pathlib import Path

    from cgnet.kernel.symbols import Symbols

FEW_ARGUMENTS, MAX_ARGUMENTS = 2, 4  # of kfree_skb


def number_of(name: str, reasons: dict[int, str]) -> int:
    """Return a reason's number; an unused number if the kernel doesn't have the reason."""
    return next((number for number, each in reasons.items() if each == name), 2**32 - 1)


def function_classes(symbols: Symbols) -> bytes:
    """Return struct function_classes: BY_FUNCTION by the addresses of the running kernel."""
    found = symbols.functions.parts(BY_FUNCTION)[:CGNET_FUNCTION_CLASSES]
    code = [bound for each in found for bound in (each.start, each.end)]
    classes = [int(BY_FUNCTION[each.name.partition(".")[0]]) for each in found]
    none = [0] * (CGNET_FUNCTION_CLASSES - len(found))
    return FUNCTION_CLASSES.packed.pack(*code, *none, *none, *classes, *none)


def rule_of_class(symbols: Symbols, btf: Path) -> dict[str, Any]:
    """Return the members of struct config for the rule that classifies drops."""
    arguments = tracepoint_arguments("kfree_skb", btf)
    known = symbols.drop_reasons
    return {
        "drop_arguments": min(max(arguments, FEW_ARGUMENTS), MAX_ARGUMENTS)
        if known
        else FEW_ARGUMENTS,
        "not_specified": number_of(UNSPECIFIED, known),
        "flags_reason": number_of("TCP_FLAGS", known),
        "paws_reason": number_of("TCP_RFC7323_PAWS", known),
        "no_socket_reason": number_of("NO_SOCKET", known),
        "close_reason": number_of("TCP_CLOSE", known),
        "benign_code": symbols.functions.ranges(BENIGN_FUNCTIONS),
        "receiving_code": symbols.functions.ranges(RECEIVING),
        "resetting_code": symbols.functions.ranges(RESETTING),
        "start_ns": time.monotonic_ns(),
        "freeing_code": symbols.freeing_code(arguments),
    }
