# SPDX-License-Identifier: BSD-2-Clause
"""Programs as a kernel 5.4 is given them: without a ring buffer, and with constants that its verifier
doesn't know, so that it walks what every filter and option would do."""

from __future__ import annotations

import pytest

from cgnet._libbpf import lib
from cgnet.btf import KERNEL_BTF, without_type
from cgnet.features import HOOKS, TRANSPORTS
from cgnet.launch import RING_TYPE, object_path
from cgnet.loader import Object

RAW = next(hook for hook in HOOKS if hook.name == "raw_tp")
PERF = next(transport for transport in TRANSPORTS if transport.name == "perf")
CONSTANTS = ".rodata.config"


@pytest.mark.parametrize("name", ["connect", "rtt", "life", "drop", "trace"])
def test_a_verifier_that_knows_no_constants_takes_the_raw_programs(name: str) -> None:
    """Without BPF_F_RDONLY_PROG a map's values are unknown to any verifier."""
    with (
        without_type(RING_TYPE, KERNEL_BTF) as btf,
        Object(object_path(name, RAW), btf) as obj,
    ):
        wanted = {each.name for each in obj.programs if each.hook == "raw_tp"}
        obj.keep(wanted, set(PERF.unused_maps))
        lib.bpf_map__set_map_flags(obj.map(CONSTANTS).handle, 0)
        obj.load()
