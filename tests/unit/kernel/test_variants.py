# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import errno
from contextlib import nullcontext
from pathlib import Path

import pytest

from cgnet.errors import NotPermittedError, UnsupportedError
from cgnet.kernel import probes, tracefs, variants
from cgnet.kernel.probes import TASK_BTF, Answer, Feature
from cgnet.kernel.variants import (
    CONNECTIONS,
    HOOK,
    LIVING,
    SOCKETS,
    STACKS,
    Chosen,
    Job,
    Variant,
    choose,
)
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
    assert [each.code for each in HOOK.variants] == ["tp_btf", "raw_tp"]
    assert [each.code for each in HOOK.only("raw_tp").variants] == ["raw_tp"]


FEATURE = Feature("feature", "", "")
NEWER = Feature("newer", "", "")
TYPED_ONE, RAW_ONE = (Variant(f"with {code}", hook=code) for code in ("tp_btf", "raw_tp"))


@pytest.fixture
def lacks(monkeypatch: pytest.MonkeyPatch) -> set[Feature]:
    """Make a kernel that has every feature but these."""
    found: set[Feature] = set()

    def trial(feature: Feature) -> Answer:
        return Answer(ok=feature not in found, why="no" if feature in found else "")

    monkeypatch.setattr(variants, "require_capabilities", lambda: None)
    monkeypatch.setattr(probes, "trial", trial)
    return found


def test_the_first_variant_that_works_does_a_job(lacks: set[Feature]) -> None:
    best, next_best = Variant("best", (FEATURE,)), Variant("next", remark="slower ({why})")
    job = Job("job", (best, next_best))
    assert choose([job])["job"] == Chosen(job, best, ())
    lacks.add(FEATURE)
    chosen = choose([job])["job"]
    assert (chosen.variant, chosen.remark) == (next_best, "slower (feature: no)")
    assert chosen.refused == ((best, "feature: no"),)
    assert choose([job._replace(variants=(best,))])["job"].variant is None


def test_a_variant_that_was_refused_at_the_load_is_chosen_no_more(lacks: set[Feature]) -> None:
    first, second = Variant("first"), Variant("second", remark="{why}")
    chosen = choose([Job("job", (first, second))], {first: "refused"})["job"]
    assert (chosen.variant, chosen.remark) == (second, "refused")
    assert not lacks


def test_a_variant_of_another_hook_is_refused_as_its_hook_is_or_is_no_matter(
    lacks: set[Feature],
) -> None:
    job = Job("job", (TYPED_ONE, RAW_ONE))
    assert choose([HOOK, job])["job"] == Chosen(job, TYPED_ONE, ())
    assert choose([HOOK.only("raw_tp"), job])["job"] == Chosen(job, RAW_ONE, ())
    lacks.add(TASK_BTF)
    chosen = choose([HOOK, job], thoroughly=True)["job"]
    assert chosen == Chosen(job, RAW_ONE, ((TYPED_ONE, "task_btf: no"),))
    assert choose([job])["job"].variant == TYPED_ONE  # a job without a hook


@pytest.mark.parametrize("variant", [
    Variant("load tells", (FEATURE,), load_tells=True), Variant("shown", (FEATURE,), shown_by=NEWER),
], ids=lambda each: each.name)  # fmt: skip
def test_what_a_load_tells_is_tried_by_doctor_alone(lacks: set[Feature], variant: Variant) -> None:
    job = Job("job", (variant,))
    lacks.add(FEATURE)
    assert choose([job])["job"].variant == variant
    assert choose([job], thoroughly=True)["job"].why == "feature: no"
    lacks.add(NEWER)
    assert bool(choose([job])["job"].variant) == variant.load_tells


EVERY = (*CONNECTIONS, *SOCKETS, LIVING, STACKS)


def test_each_program_of_a_variant_is_in_an_object_of_its_hook(built_object: Path) -> None:
    found: dict[str, set[str]] = {}
    for path in built_object.parent.glob("*.*.bpf.o"):
        with Object(path) as obj:
            names = {each.name for each in obj.programs}
        found.setdefault(path.name.split(".")[1], set()).update(names)
    ways = {each.code: each.way for each in HOOK.variants}
    for variant in (each for job in EVERY for each in job.variants):
        there = found[ways[variant.hook]] if variant.hook else set[str]().union(*found.values())
        assert variant.programs <= there, variant.name


def test_a_remark_tells_why_where_something_better_may_be_refused() -> None:
    for job in EVERY:
        assert not job.variants[0].remark
        assert all("{why}" in each.remark for each in job.variants if each.programs and each.remark)


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
