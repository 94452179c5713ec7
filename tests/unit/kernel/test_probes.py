# SPDX-License-Identifier: BSD-2-Clause
"""Questions to the kernel, and how its answers are read."""

from __future__ import annotations

import errno
import struct
import sys
from typing import TYPE_CHECKING, Any, Self

import pytest

from cgnet.errors import CgnetError, LibbpfError, NotPermittedError, UnsupportedError
from cgnet.kernel import probes, tracefs, variants
from cgnet.kernel.probes import (
    COMPARE_AND_SWAP,
    FEATURES,
    FEXIT,
    RAW_TP,
    RING_BUFFER,
    STACK,
    TP_BTF,
    TRACEPOINT,
    Answer,
)
from cgnet.loader import Object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXT_HEADER = struct.pack("=HBBI", 0xEB9F, 1, 0, 32)  # of .BTF.ext; that of .BTF is 24 bytes long
VERIFIER = """\
libbpf: prog 'probe_socket_cookie': BPF program load failed: Invalid argument
libbpf: prog 'probe_socket_cookie': -- BEGIN PROG LOAD LOG --
0: R1=ctx(off=0,imm=0) R10=fp0
1: (85) call bpf_get_socket_cookie#46
unknown func bpf_get_socket_cookie#46
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
-- END PROG LOAD LOG --
libbpf: prog 'probe_socket_cookie': failed to load: -22
"""


class Kernel:
    """Stands for the object, loaded into a kernel that refuses what it is told to."""

    def __init__(self) -> None:
        self.load_error: LibbpfError | None = None
        self.attach_error: LibbpfError | None = None
        self.did: list[Any] = []
        self.result = 0  # what a program wrote

    def open(self, _path: Path) -> Self:
        with Object(probes.OBJECT) as obj:
            self.programs = obj.programs
        return self

    def keep(self, programs: set[str], without_maps: set[str]) -> None:
        self.did.append((programs, without_maps))

    def load(self) -> None:
        self.did.append("load")
        if self.load_error:
            raise self.load_error

    def attach(self, program: Any) -> None:
        self.did.append(f"attach {program.name}")
        if self.attach_error:
            raise self.attach_error

    def map(self, name: str) -> Self:
        self.did.append(f"read {name}")
        return self

    def lookup(self, _key: bytes, size: int) -> bytes:
        return self.result.to_bytes(size, sys.byteorder, signed=True)

    def aim(self, program: Any, function: str) -> None:
        self.did.append(f"aim {program.name} at {function}")

    def use_multi(self, program: Any) -> None:
        self.did.append(f"multi {program.name}")

    def attach_kprobe(self, program: Any, function: str, *, multi: bool) -> None:
        self.did.append(f"attach {program.name} to {function}{' by multi' if multi else ''}")
        if self.attach_error:
            raise self.attach_error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.did.append("close")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    made = Kernel()
    monkeypatch.setattr(probes, "Object", made.open)
    probes.trial.cache_clear()
    probes.trial_at.cache_clear()
    yield made
    probes.trial.cache_clear()
    probes.trial_at.cache_clear()


def test_each_feature_has_a_program_and_maps_of_its_own() -> None:
    with Object(probes.OBJECT) as obj:
        assert {each.name for each in obj.programs} == {f"probe_{each.name}" for each in FEATURES}
        assert set(obj._maps) == probes.MAPS
    assert sum(len(each.maps) for each in FEATURES) == len(probes.MAPS)
    assert len({each.name for each in FEATURES}) == len(FEATURES)


def test_no_trial_makes_libbpf_read_the_kernels_btf_for_nothing(built_object: Path) -> None:
    def relocations(path: Path) -> int:
        data = path.read_bytes()
        header = data.index(EXT_HEADER)
        return int(struct.unpack_from("=I", data, header + 28)[0])

    assert relocations(probes.OBJECT) == 0
    assert relocations(built_object) > 0


def test_one_program_and_its_own_maps_are_loaded(kernel: Kernel) -> None:
    assert probes.trial(RING_BUFFER) == Answer(ok=True)
    others = {"probe_storage", "probe_trie", "probe_outer", "probe_perf", "probe_frames"}
    assert kernel.did == [({"probe_ring_buffer"}, others), "load", "close"]


def test_it_is_attached_only_where_that_is_what_tells(kernel: Kernel) -> None:
    assert probes.trial(RAW_TP) == Answer(ok=True)
    assert kernel.did[1:] == ["load", "attach probe_raw_tp", "close"]
    kernel.did.clear()
    assert probes.trial(TP_BTF) == Answer(ok=True)
    assert kernel.did[1:] == ["load", "close"]


@pytest.mark.parametrize(
    ("way", "did"),
    [
        ("fentry", ["aim probe_fentry at f", "load", "attach probe_fentry"]),
        ("kprobe", ["load", "attach probe_kprobe to f"]),
        ("kprobe.multi", ["multi probe_kprobe", "load", "attach probe_kprobe to f by multi"]),
    ],
)
def test_a_function_is_tried_by_each_way(kernel: Kernel, way: str, did: list[str]) -> None:
    assert probes.trial_at(way, "f") == Answer(ok=True)
    assert kernel.did[1:] == [*did, "close"]
    kernel.attach_error = LibbpfError("attach", errno.ENOENT)
    assert probes.trial_at(way, "g") == Answer(
        ok=False, why="not attached: No such file or directory"
    )
    kernel.load_error = LibbpfError("load", errno.ESRCH)
    assert probes.trial_at(way, "h") == Answer(ok=False, why="not loaded: No such process")
    assert probes.trial_at(way, "f") == Answer(ok=True)


def test_an_answer_is_kept(kernel: Kernel) -> None:
    kernel.load_error = LibbpfError("load", errno.EINVAL)
    first = probes.trial(TP_BTF)
    assert probes.trial(TP_BTF) is first
    assert kernel.did.count("load") == 1


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("", "not loaded: Invalid argument"),
        ("libbpf: map 'probe_ring': failed to create", "not loaded: Invalid argument"),
        (VERIFIER, "not loaded: Invalid argument: unknown func bpf_get_socket_cookie#46"),
    ],
    ids=["silent", "map", "verifier"],
)
def test_what_is_not_loaded_is_told_with_the_verifiers_reason(
    kernel: Kernel, log: str, why: str
) -> None:
    kernel.load_error = LibbpfError("bpf_object__load: Invalid argument", errno.EINVAL, log)
    assert probes.trial(TP_BTF) == Answer(ok=False, why=why)
    assert kernel.did[-1] == "close"


def test_what_is_loaded_and_not_attached_does_not_work(kernel: Kernel) -> None:
    kernel.attach_error = LibbpfError("bpf_program__attach", errno.EBUSY)
    answer = probes.trial(FEXIT)
    assert answer == Answer(ok=False, why="not attached: Device or resource busy")
    assert kernel.did[-1] == "close"


@pytest.mark.parametrize(("result", "answer"), [
    (40, Answer(ok=True)),
    (32, Answer(ok=False, why="it has no more than 4 frames")),
    (0, Answer(ok=False, why="it has no more than 0 frames")),
    (-errno.EFAULT, Answer(ok=False, why="Bad address")),
])  # fmt: skip
def test_a_stack_is_one_of_several_functions(kernel: Kernel, result: int, answer: Answer) -> None:
    kernel.result = result
    assert probes.trial(STACK) == answer
    assert kernel.did[1:] == ["load", "attach probe_stack", "read probe_frames", "close"]


def test_drops_without_a_stack_say_so(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "require_capabilities", lambda: None)
    assert variants.choose([variants.STACKS])["stacks"].refused == ()
    assert "attach probe_stack" not in kernel.did  # it takes typed programs: not asked
    probes.trial.cache_clear()
    kernel.load_error = LibbpfError("no", errno.EINVAL)
    assert not variants.works(COMPARE_AND_SWAP).ok
    kernel.load_error, kernel.result = None, 8
    chosen = variants.choose([variants.STACKS])["stacks"]
    assert chosen.variant
    assert chosen.variant.unseen == ("stack", "direction")
    assert chosen.why == "stack: it has no more than 1 frames"
    probes.trial.cache_clear()


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (UnsupportedError("no tracepoint"), Answer(ok=False, why="no tracepoint")),
        (NotPermittedError("needs it"), Answer(ok=None, why="not permitted: needs it")),
    ],
)
def test_a_tracepoint_is_looked_for_and_not_opened(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, error: CgnetError, answer: Answer
) -> None:
    names = []
    monkeypatch.setattr(tracefs, "tracepoint_id", names.append)
    assert probes.trial(TRACEPOINT) == Answer(ok=True)
    assert names == ["syscalls/sys_enter_connect"]

    def refuse(_name: str) -> int:
        raise error

    monkeypatch.setattr(tracefs, "tracepoint_id", refuse)
    probes.trial.cache_clear()
    assert probes.trial(TRACEPOINT) == answer
    assert kernel.did[-1] == "close"


@pytest.mark.parametrize("content", [None, b"no object"])
def test_an_object_that_is_missing_or_damaged_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    monkeypatch.setattr(probes, "OBJECT", tmp_path / "probe.bpf.o")
    probes.trial.cache_clear()
    if content:
        probes.OBJECT.write_bytes(content)
    with pytest.raises(CgnetError, match="build or reinstall"):
        probes.trial(TP_BTF)


def test_without_rights_nothing_is_tried(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NotPermittedError("needs CAP_BPF")

    monkeypatch.setattr(variants, "require_capabilities", refuse)
    assert variants.works(TP_BTF) == Answer(ok=None, why="not permitted: needs CAP_BPF")
    assert kernel.did == []
    monkeypatch.setattr(variants, "require_capabilities", lambda: None)
    assert variants.works(TP_BTF) == Answer(ok=True)


def test_the_first_feature_that_is_missing_decides(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "require_capabilities", lambda: None)
    assert variants.all_work((TP_BTF, RING_BUFFER)) == Answer(ok=True)
    assert variants.all_work(()) == Answer(ok=True)
    kernel.attach_error = LibbpfError("attach", errno.ENOENT)
    kernel.did.clear()
    answer = variants.all_work((TP_BTF, FEXIT, RAW_TP))
    assert answer == Answer(ok=False, why="fexit: not attached: No such file or directory")
    assert [each for each in kernel.did if each == "load"] == ["load"]
