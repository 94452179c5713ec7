# SPDX-License-Identifier: BSD-2-Clause
"""Programs as a kernel 5.4 is given them: without a ring buffer, and with constants in the code, since
its verifier doesn't know what is in .rodata."""

from __future__ import annotations

import logging
import re

import pytest

from cgnet.errors import LibbpfError
from cgnet.kernel._libbpf import lib
from cgnet.kernel.btf import KERNEL_BTF, without_type
from cgnet.kernel.constant_folding import SECTION
from cgnet.kernel.variants import HOOK, TRANSPORT
from cgnet.loader import Object
from cgnet.run.launch import RING_TYPE, object_path

(RAW,) = HOOK.only("raw_tp").variants
(PERF,) = TRANSPORT.only("perf").variants


@pytest.mark.parametrize("name", ["connect", "rtt", "life", "retrans", "drop", "trace"])
def test_a_verifier_that_knows_no_constants_takes_the_raw_programs(name: str) -> None:
    """Without BPF_F_RDONLY_PROG a map's values are unknown to any verifier."""
    with (
        without_type(RING_TYPE, KERNEL_BTF) as btf,
        Object(object_path(name, RAW), btf) as obj,
    ):
        wanted = {each.name for each in obj.programs if each.hook == "raw_tp"}
        obj.keep(wanted, set(PERF.unused_maps))
        lib.bpf_map__set_map_flags(obj.map(SECTION).handle, 0)
        obj.load()


WALKED = re.compile(r"processed (\d+) insns")


def walked(caplog: pytest.LogCaptureFixture, obj: Object) -> int:
    """Load the raw programs; return how many instructions the verifier went through."""
    obj.keep({each.name for each in obj.programs if each.hook == "raw_tp"}, set(PERF.unused_maps))
    lib.bpf_map__set_map_flags(obj.map(SECTION).handle, 0)
    obj.log_briefly()
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="cgnet.libbpf"):
        obj.load()
    return sum(int(found) for found in WALKED.findall(caplog.text))


@pytest.mark.parametrize("name", ["connect", "rtt", "life", "retrans", "drop", "trace"])
def test_constants_in_the_code_are_known_to_any_verifier(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = object_path(name, RAW)
    with without_type(RING_TYPE, KERNEL_BTF) as btf:
        with Object(path, btf) as obj:
            unknown = walked(caplog, obj)
        with Object(path, btf, {}) as obj:
            known = walked(caplog, obj)
    assert 0 < known < unknown


def test_a_brief_log_says_why_a_program_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """That is the last word, and no instruction stands before it."""
    with without_type(RING_TYPE, KERNEL_BTF) as btf, Object(object_path("life", RAW), btf) as obj:
        obj.keep({"living_asked"}, {*PERF.unused_maps, "question"})
        obj.log_briefly()
        with caplog.at_level(logging.WARNING), pytest.raises(LibbpfError) as refused:
            obj.load()
    log = refused.value.log
    assert "invalid func" in log
    assert "-- BEGIN PROG LOAD LOG --" in log
    assert "R10=fp" not in log
