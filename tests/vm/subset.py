# SPDX-License-Identifier: BSD-2-Clause
"""Which tests of tests/kernel run in guests: for each command a few that show that it works.

A guest is slow. Load, figures and containers' runtimes are left to hosts.
"""

from __future__ import annotations

EVERYWHERE = "run/test_everywhere.py::test_"
DOCTOR = (
    "the_host_is_described_as_it_is",
    "every_feature_is_answered_and_a_no_has_a_reason",
    "a_hook_works_if_a_run_that_must_take_it_does",
    "the_hook_that_is_named_is_the_one_that_is_attached",
    "the_way_to_what_is_open_is_the_one_that_is_loaded",
    "the_way_to_errors_before_a_syn_is_the_one_that_is_attached",
    "maps_are_there_if_the_kernel_makes_them",
)
# By the command that is tested. Those for a kind of hook have its name among their parameters.
TESTS = {
    "connect": (
        f"{EVERYWHERE}connect",
        f"{EVERYWHERE}connect_counts",
        "owners/test_connect_owners.py::test_subtree_that_is_born_late",
        "connect/test_connect_sync_errors.py::test_each_way_forced",
    ),
    "connlat": (f"{EVERYWHERE}connlat",),
    "rtt": (f"{EVERYWHERE}rtt", f"{EVERYWHERE}rtt_samples"),
    "life": (f"{EVERYWHERE}life", "life/test_life_open.py::test_living_ones"),
    "retrans": (f"{EVERYWHERE}retrans",),
    "drop": (f"{EVERYWHERE}drop", f"{EVERYWHERE}drop_counts"),
    "trace": ("trace/test_trace_path.py::test_loopback",),
    "why": ("why/test_why.py::test_a_command_that_is_refused",),
    "containers": (f"{EVERYWHERE}containers",),
    "doctor": tuple(f"run/test_doctor_run.py::test_{name}" for name in DOCTOR),
}
# What neither cgroups nor the transport have a part in: once for each kernel.
FUNCTIONS = (
    "a_routed_packet[None-6]",
    "a_routed_packet[fentry-4]",
    "a_routed_packet[kprobe.multi-6]",
    "a_routed_packet[kprobe-4]",
    "the_hook_that_drops[hook_at0-kprobe]",
    "the_hook_that_drops[hook_at1-None]",
    "the_hook_that_drops[hook_at2-kprobe]",
    "the_backlog_of_a_socket[None]",
    "the_backlog_of_a_socket[kprobe]",
    "doctor_names_them",
    "rules_that_are_slow_are_netfilters",
)
ONCE = {
    "drop": (
        "drop/test_drop_silence.py::test_ordinary_connections_lose_nothing",
        "drop/test_drop_silence.py::test_data_after_the_close_is_shown",
    ),
    "trace": (
        *(f"trace/test_trace_functions.py::test_{name}" for name in FUNCTIONS),
        "trace/test_trace_refused.py::test_port_that_a_router_gives",
        "trace/test_trace_refused.py::test_namespace_that_a_packet_comes_to",
        "trace/test_trace_bounds.py::test_reader_that_lets_many_wait",
    ),
}
# How records come to user space, and the feature that it takes.
TRANSPORTS = {"ring": "ring_buffer", "perf": "perf_buffers"}
LAYOUTS = ("v2", "hybrid", "v1")
# A boot for each; those behind the first in guests of the first layout alone.
PARTS = {"commands": TESTS, "packets": ONCE, "costs": {}}


def parts_of(layout: str) -> list[str]:
    """Return what guests of a layout do, a boot for each."""
    return list(PARTS) if layout == LAYOUTS[0] else [next(iter(PARTS))]
