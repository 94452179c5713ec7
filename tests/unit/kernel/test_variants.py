# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import errno
from contextlib import nullcontext
from pathlib import Path

import pytest

from cgnet.errors import NotPermittedError, UnsupportedError
from cgnet.kernel import tracefs, variants
from cgnet.loader import Object

SYS_ADMIN, PERFMON, BPF = 21, 38, 39


def grant(monkeypatch: pytest.MonkeyPatch, *capabilities: int, last: int = 40) -> None:
    """Give the process capabilities, on a kernel that has those up to ``last``."""
    mask = sum(1 << number for number in capabilities)
    files = {
        "/proc/self/status": f"Name:\tcgnet\nCapPrm:\t{(1 << 41) - 1:016x}\nCapEff:\t{mask:016x}\n",
        "/proc/sys/kernel/cap_last_cap": f"{last}\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda path, **_: files[str(path)])


@pytest.mark.parametrize("capabilities", [(SYS_ADMIN,), (PERFMON, BPF), (SYS_ADMIN, BPF)])
def test_either_set_of_capabilities_is_enough(
    monkeypatch: pytest.MonkeyPatch, capabilities: tuple[int, ...]
) -> None:
    grant(monkeypatch, *capabilities)
    assert variants.effective_capabilities() == frozenset(capabilities)
    variants.require_capabilities()


@pytest.mark.parametrize(
    ("capabilities", "missing"),
    [((), "CAP_BPF and CAP_PERFMON"), ((BPF,), "CAP_PERFMON"), ((PERFMON,), "CAP_BPF")],
)
def test_the_missing_capability_is_named(
    monkeypatch: pytest.MonkeyPatch, capabilities: tuple[int, ...], missing: str
) -> None:
    grant(monkeypatch, *capabilities)
    with pytest.raises(NotPermittedError, match=rf"^needs {missing}: .*sudo"):
        variants.require_capabilities()


def test_a_kernel_without_cap_bpf_wants_cap_sys_admin(monkeypatch: pytest.MonkeyPatch) -> None:
    grant(monkeypatch, last=37)
    with pytest.raises(NotPermittedError, match="needs CAP_SYS_ADMIN"):
        variants.require_capabilities()


def test_without_btf_the_option_that_helps_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(variants, "KERNEL_BTF", tmp_path / "vmlinux")
    variants.require_btf(tmp_path / "given")
    with pytest.raises(UnsupportedError, match="--btf FILE"):
        variants.require_btf(None)


def test_typed_hooks_are_tried_before_raw_ones_unless_one_is_forced() -> None:
    assert [hook.name for hook in variants.hooks(None)] == ["tp_btf", "raw_tp"]
    assert [hook.name for hook in variants.hooks("raw_tp")] == ["raw_tp"]


TYPED_MAPS = {
    "attempt_slots", "ledger", "ledger_slots", "scratch", "waiting_rows", "recent", "sums",
    "sums_even", "sums_odd",
}  # fmt: skip
RAW_MAPS = {"ledger_hash", "seeds", "perf", "pending_records"}


@pytest.mark.parametrize(("way", "own", "others"), [
    ("typed", TYPED_MAPS, RAW_MAPS), ("raw", RAW_MAPS, TYPED_MAPS),
])  # fmt: skip
def test_an_object_has_its_own_maps_and_none_of_the_others(
    built_object: Path, way: str, own: set[str], others: set[str]
) -> None:
    found = set()
    for path in built_object.parent.glob(f"*.{way}.bpf.o"):
        with Object(path) as obj:
            found |= {name for name in own | others if obj.has_map(name)}
    assert found == own


def test_a_tracepoints_id_is_read_where_tracefs_is_mounted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "second/events/syscalls/sys_enter_connect"
    place.mkdir(parents=True)
    (place / "id").write_text("1234\n", encoding="utf-8")
    monkeypatch.setattr(tracefs, "MOUNTS", (tmp_path / "first", tmp_path / "second"))
    assert tracefs.tracepoint_id("syscalls/sys_enter_connect") == 1234


def test_where_tracefs_is_not_mounted_a_mount_of_its_own_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "events/sched/it").mkdir(parents=True)
    (tmp_path / "events/sched/it/id").write_text("77\n", encoding="utf-8")
    monkeypatch.setattr(tracefs, "MOUNTS", (tmp_path / "none",))
    monkeypatch.setattr(tracefs, "_detached_mount", lambda: nullcontext(tmp_path))
    assert tracefs.tracepoint_id("sched/it") == 77


def test_a_tracepoint_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tracefs, "MOUNTS", (tmp_path,))
    monkeypatch.setattr(tracefs, "_detached_mount", lambda: nullcontext(tmp_path))
    with pytest.raises(UnsupportedError, match="no tracepoint no/such"):
        tracefs.tracepoint_id("no/such")


def test_a_tracepoint_that_may_not_be_read_is_told_as_a_missing_right(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(tracefs, "MOUNTS", (tmp_path,))
    monkeypatch.setattr(tracefs, "_detached_mount", refuse)
    with pytest.raises(NotPermittedError, match="sched/it needs CAP_SYS_ADMIN"):
        tracefs.tracepoint_id("sched/it")


def test_a_machine_whose_system_call_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    with pytest.raises(UnsupportedError, match="pdp11"):
        tracefs.open_tracepoint("syscalls/sys_enter_connect")
