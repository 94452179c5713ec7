# SPDX-License-Identifier: BSD-2-Clause
"""Which tests of tests/kernel run in guests: for each command a few that show that it works.

A guest is slow. Load, figures and containers' runtimes are left to hosts.
"""

from __future__ import annotations

EVERYWHERE = "test_everywhere.py::test_"
DOCTOR = (
    "the_host_is_described_as_it_is",
    "every_feature_is_answered_and_a_no_has_a_reason",
    "a_hook_works_if_a_run_that_must_take_it_does",
    "the_hook_that_is_named_is_the_one_that_is_attached",
    "the_way_to_errors_before_a_syn_is_the_one_that_is_attached",
    "maps_are_there_if_the_kernel_makes_them",
)
# By the command that is tested. Those for a kind of hook have its name among their parameters.
TESTS = {
    "connect": (
        f"{EVERYWHERE}connect",
        f"{EVERYWHERE}connect_counts",
        "test_connect_owners.py::test_subtree_that_is_born_late",
        "test_connect_sync_errors.py::test_each_way_forced",
    ),
    "connlat": (f"{EVERYWHERE}connlat",),
    "rtt": (f"{EVERYWHERE}rtt", f"{EVERYWHERE}rtt_samples"),
    "life": (f"{EVERYWHERE}life", "test_life_open.py::test_living_ones"),
    "drop": (f"{EVERYWHERE}drop", f"{EVERYWHERE}drop_counts"),
    "trace": ("test_trace_path.py::test_loopback",),
    "containers": (f"{EVERYWHERE}containers",),
    "doctor": tuple(f"test_doctor_run.py::test_{name}" for name in DOCTOR),
}
# How records come to user space, and the feature that it takes.
TRANSPORTS = {"ring": "ring_buffer", "perf": "perf_buffers"}
LAYOUTS = ("v2", "hybrid", "v1")
