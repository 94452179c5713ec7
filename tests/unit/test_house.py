# SPDX-License-Identifier: BSD-2-Clause
"""The rules of the house that no tool checks."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cgnet.loader import Object

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src/cgnet"
# Data flows one way: no module imports one that stands after it. A package is one place.
ORDER = (
    "errors", "_layouts", "_libbpf", "ring", "perf", "program_stats", "folding", "loader", "btf",
    "tracefs", "probes", "features", "long_paths",
    "cgroups", "host", "processes", "values", "netns", "cgroup_filter", "absent", "name_filter",
    "filters",
    "seeds", "asking", "handovers", "groups", "events", "containers", "runtimes", "netns_owners",
    "attribution", "histograms", "keys", "tables", "counts", "program_sets", "pipeline", "symbols",
    "reasons",
    "class_rule", "packets", "tcp_memory", "evidence",
    "advice", "diagnosis", "trips", "drops", "stages", "render", "slow_part", "losses",
    "output", "launch", "command", "attempts", "newcomers", "owner_names", "printer", "session",
    "completion", "option_types", "option_groups", "options", "drop_options", "commands", "cli",
)  # fmt: skip
MODULES = sorted(SOURCE.rglob("*.py"))
MOST_LINES = 600
GENERATED = {"vmlinux.h", "_layouts.py"}
# Each is run typed where the kernel can, else raw.
TRACEPOINTS = (
    "inet_sock_set_state", "tcp_probe", "tcp_rcv_space_adjust", "tcp_destroy_sock",
    "tcp_receive_reset", "inet_sk_error_report", "kfree_skb", "consume_skb",
    "net_dev_queue", "net_dev_start_xmit",
    "qdisc_enqueue", "qdisc_dequeue", "netif_rx_entry", "napi_gro_receive_entry",
    "netif_receive_skb", "sock_send_length",
)  # fmt: skip
CONNECT_FUNCTIONS = ("tcp_v4_connect", "tcp_v6_connect")
TRACE_FUNCTIONS = (
    "ip_output", "ip6_output", "ip_rcv_core", "ip_rcv", "ip6_rcv_core", "ipv6_rcv", "tcp_v4_rcv",
    "tcp_v6_rcv", "tcp_add_backlog", "tcp_queue_rcv", "tcp_data_queue", "nf_hook_slow",
)  # fmt: skip
HOOKS = {
    *(f"{kind}/{name}" for kind in ("fentry", "kprobe") for name in TRACE_FUNCTIONS),
    *(f"{kind}/nf_hook_slow" for kind in ("fexit", "kretprobe")),
    *(f"{kind}/{name}" for kind in ("tp_btf", "raw_tp") for name in TRACEPOINTS),
    *(
        f"{kind}/{name}"
        for kind in ("fentry", "fexit", "kprobe", "kretprobe")
        for name in CONNECT_FUNCTIONS
    ),
    "tp_btf/tcp_send_reset",  # typed alone
    "raw_tp/cgroup_mkdir",
    "raw_tp/cgroup_rename",
    "raw_tp/cgroup_rmdir",
    "raw_tp/task_rename",
    "tracepoint/syscalls/sys_enter_connect",
    "tracepoint/syscalls/sys_exit_connect",
    "iter/task_file",
    "iter/bpf_sk_storage_map",
    "iter/bpf_map_elem",
}


def place(module: str) -> str:
    """Return the part of a module's name that ORDER has: of cgnet.render.text, "render"."""
    return module.split(".")[1] if "." in module else ""


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run: not what is there for the type checker alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        yield node
        yield from running(node)


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, anywhere in it, by their full names."""
    found: set[str] = set()
    for node in running(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found |= (
                {f"{module}.{each.name}" for each in node.names} if module == "cgnet" else {module}
            )
    return found


def name_of(path: Path) -> str:
    return ".".join(("cgnet", *path.relative_to(SOURCE).with_suffix("").parts))


def test_every_module_has_its_place_in_the_order() -> None:
    assert {place(name_of(path)) for path in MODULES} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_none_that_stands_after_it(path: Path) -> None:
    own = place(name_of(path))
    if own == "__init__":
        assert imports(path) <= {"__future__"}
        return
    ours = {place(each) for each in imports(path) if each.startswith("cgnet.")} & set(ORDER)
    assert {each for each in ours if ORDER.index(each) > ORDER.index(own)} == set()


def importers(module: str) -> set[str]:
    """Return who imports a module or something in it."""
    return {
        place(name_of(path))
        for path in MODULES
        if any(each == module or each.startswith(f"{module}.") for each in imports(path))
    }


def test_only_render_imports_rich() -> None:
    assert importers("rich") == {"render"}


def test_only_few_modules_import_ctypes() -> None:
    assert importers("ctypes") == {
        "_libbpf",
        "perf",
        "program_stats",
        "loader",
        "btf",
        "tracefs",
        "cgroups",
        "netns",
    }


def test_only_handles_and_layout_checks_call_libbpf() -> None:
    assert importers("cgnet._libbpf") <= {
        "perf",
        "program_stats",
        "folding",
        "loader",
        "btf",
        "cli",
    }


def test_no_command_imports_another() -> None:
    names = [path for path in MODULES if path.parent.name == "commands"]
    assert [
        path.name for path in names if any("cgnet.commands" in each for each in imports(path))
    ] == []


def written_files() -> list[Path]:
    """Return the sources that people write."""
    folders = {"src": "*.py", "tools": "*.py", "tests": "*.py", "bench": "*.py", "bpf": "*.[ch]"}
    found = [path for folder, kind in folders.items() for path in (ROOT / folder).rglob(kind)]
    return sorted(path for path in found if path.name not in GENERATED)


@pytest.mark.parametrize("path", written_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_not_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_the_programs_hooks_are_those_declared_here() -> None:
    found = set()
    for path in sorted((SOURCE / "_bpf").glob("*.bpf.o")):
        with Object(path) as obj:
            found |= {program.section for program in obj.programs}
    assert found == HOOKS


def test_the_sources_name_no_other_hook() -> None:
    """Macros put the function's name behind the kind of hook."""
    found = set()
    for path in [*(ROOT / "bpf").glob("*.c"), *(ROOT / "bpf/include").glob("*.h")]:
        found |= set(re.findall(r'SEC\("(\w+/[^"]*)"', path.read_text(encoding="utf-8")))
    kinds = {f"{hook.partition('/')[0]}/" for hook in HOOKS}
    assert found - HOOKS - kinds == set()
    assert found
