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

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "src/cgnet"
# Data flows one way: a module imports from its own room, or from a room that stands before it.
ROOMS = (
    "errors", "text", "records", "kernel", "owners", "filters", "counting", "render", "findings",
    "run", "options", "commands", "cli",
)  # fmt: skip
IN_ROOM = {"loader": "kernel"}  # the binding of libbpf keeps its place beside the folders
MODULES = sorted(SOURCE.rglob("*.py"))
MAX_LINES = 600
GENERATED = {"vmlinux.h", "_layouts.py"}
# Each is run typed where the kernel can, else raw.
TRACEPOINTS = (
    "inet_sock_set_state", "tcp_probe", "tcp_rcv_space_adjust", "tcp_destroy_sock",
    "tcp_receive_reset", "inet_sk_error_report", "kfree_skb", "consume_skb",
    "net_dev_queue", "net_dev_start_xmit",
    "qdisc_enqueue", "qdisc_dequeue", "netif_rx_entry", "napi_gro_receive_entry",
    "netif_receive_skb", "sock_send_length", "tcp_retransmit_skb", "tcp_retransmit_synack",
)  # fmt: skip
CONNECT_FUNCTIONS = ("tcp_v4_connect", "tcp_v6_connect", "inet_stream_connect")
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


def room(module: str) -> str:
    """Return the folder below cgnet that a module lies in, or the module itself beside them."""
    below = module.split(".")[1] if "." in module else ""
    return IN_ROOM.get(below, below)


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


def test_every_module_has_a_room() -> None:
    assert {room(name_of(path)) for path in MODULES} - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_from_no_later_room(path: Path) -> None:
    own = room(name_of(path))
    if own == "__init__":
        assert imports(path) <= {"__future__"}
        return
    ours = {room(each) for each in imports(path) if each.startswith("cgnet.")} & set(ROOMS)
    assert {each for each in ours if ROOMS.index(each) > ROOMS.index(own)} == set()


def importers(module: str) -> set[str]:
    """Return the modules that import a module or something in it."""
    return {
        name_of(path).removeprefix("cgnet.")
        for path in MODULES
        if any(each == module or each.startswith(f"{module}.") for each in imports(path))
    }


def test_only_render_imports_rich() -> None:
    assert {room(f"cgnet.{each}") for each in importers("rich")} == {"render"}


def test_only_few_modules_import_ctypes() -> None:
    assert importers("ctypes") == {
        "kernel._libbpf",
        "kernel.perf_buffer",
        "kernel.program_stats",
        "kernel.btf",
        "kernel.tracefs",
        "loader",
        "owners.cgroups",
        "owners.netns",
    }


def test_only_the_kernel_room_calls_libbpf() -> None:
    assert {room(f"cgnet.{each}") for each in importers("cgnet.kernel._libbpf")} <= {
        "kernel",
        "cli",
    }


def command_of(module: str) -> str:
    """Return the command that a module of cgnet.commands belongs to."""
    return module.split(".")[2] if module.startswith("cgnet.commands.") else ""


def test_no_command_imports_another() -> None:
    """connlat shows what connect records, why asks several, some list what is open: the exceptions."""
    pairs = {
        (command_of(name_of(path)), command_of(each)) for path in MODULES for each in imports(path)
    }
    others = {(own, other) for own, other in pairs if own and other and own != other}
    listing = {(each, "sockets") for each in ("life", "retrans", "rtt", "drop", "trace")}
    assert {each for each in others if each[0] != "why"} <= {("connlat", "connect"), *listing}


def written_files() -> list[Path]:
    """Return the sources that people write."""
    folders = {"src": "*.py", "tools": "*.py", "tests": "*.py", "bench": "*.py", "bpf": "*.[ch]"}
    found = [path for folder, kind in folders.items() for path in (ROOT / folder).rglob(kind)]
    return sorted(path for path in found if path.name not in GENERATED)


@pytest.mark.parametrize("path", written_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_not_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_the_programs_hooks_are_those_declared_here() -> None:
    found = set()
    for path in sorted((SOURCE / "_bpf").glob("*.bpf.o")):
        with Object(path) as obj:
            found |= {program.section for program in obj.programs}
    assert found == HOOKS


def test_the_sources_name_no_other_hook() -> None:
    """Macros put the function's name behind the kind of hook."""
    found = set()
    for path in [*(ROOT / "bpf").glob("*.c"), *(ROOT / "bpf").glob("*/*.h")]:
        found |= set(re.findall(r'SEC\("(\w+/[^"]*)"', path.read_text(encoding="utf-8")))
    kinds = {f"{hook.partition('/')[0]}/" for hook in HOOKS}
    assert found - HOOKS - kinds == set()
    assert found
