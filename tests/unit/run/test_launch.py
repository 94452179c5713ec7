# SPDX-License-Identifier: BSD-2-Clause
"""Which variant runs on kernels that refuse some, and what is said of it."""

from __future__ import annotations

import errno
from functools import partialmethod
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cgnet.commands.connect.command import Connect
from cgnet.commands.drop.command import Drop
from cgnet.commands.drop.config import DropOptions
from cgnet.commands.life import COMMAND as LIFE
from cgnet.commands.life import Life
from cgnet.commands.rtt import Rtt
from cgnet.commands.trace.command import Trace
from cgnet.errors import CgnetError, ExitStatus, LibbpfError, StoppedError, strerror
from cgnet.filters.selection import Filters, Selection
from cgnet.kernel import probes, variants
from cgnet.kernel.probes import (
    COMPARE_AND_SWAP,
    MAP_ELEM,
    RING_BUFFER,
    SOCKET_STORAGE,
    STORAGE_ELEM,
    TASK_FILE,
    Answer,
    Feature,
)
from cgnet.kernel.variants import LIVING, Chosen, Job, Variant
from cgnet.loader import Object
from cgnet.records._layouts import Role
from cgnet.run.launch import Launch

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.loader import Program
    from cgnet.run.command import Command

RING = 1 << 20
SAID = "libbpf: prog '{}': BPF program load failed: x\nlibbpf: prog '{}': failed to load: -1"


class Kernel:
    """Loads what it is given, but programs that it refuses. Nothing is attached."""

    def __init__(self) -> None:
        self.lacks: set[Feature] = set()
        self.refuses: dict[str, int] = {}  # the errno, by program
        self.looked: list[tuple[str, frozenset[str]]] = []  # the file, and what was taken of it

    def load(self, obj: Object) -> None:
        taken = frozenset(program.name for program in obj.programs if program.name in obj._kept)
        self.looked.append((obj.path.name, taken))
        for name in sorted(taken & self.refuses.keys()):
            number = self.refuses[name]
            raise LibbpfError("bpf_object__load: no", number, SAID.format(name, name))

    def trial(self, feature: Feature) -> Answer:
        return Answer(ok=feature not in self.lacks, why="no" if feature in self.lacks else "")

    @property
    def taken(self) -> set[str]:
        """What the last look took."""
        return set(self.looked[-1][1])


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Kernel:
    request.getfixturevalue("mounted")
    made = Kernel()
    monkeypatch.setattr(variants, "require_capabilities", lambda: None)
    monkeypatch.setattr(variants, "require_btf", lambda _btf: None)
    monkeypatch.setattr(probes, "trial", made.trial)
    monkeypatch.setattr(probes, "trial_at", lambda *_: Answer(ok=False, why="no"))
    monkeypatch.setattr(Object, "load", partialmethod(lambda obj, kernel: kernel.load(obj), made))
    monkeypatch.setattr(Object, "resize_inner", lambda *_: None)  # makes a map, which takes rights
    monkeypatch.setattr(Object, "ring", lambda *_: None)
    monkeypatch.setattr(Launch, "_attach", lambda *_: None)
    return made


class Started(NamedTuple):
    """What a launch says after its start."""

    runs: dict[str, Any]
    said: list[str]


def started(
    command: Command = LIFE, hook: str | None = None, transport: str | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Started:  # fmt: skip
    launch = Launch(command, Filters(), RING, stopped=stopped)
    launch.start(None, hook, transport).close()
    return Started(launch.runs, launch.remarks)


class WithInterval(Life):
    """Life that shows open connections."""

    def needed(self) -> list[Job]:
        return list(self.jobs)


OPEN = WithInterval()


def open_by(number: int, why: str) -> list[str]:
    """Return what is said of a variant of LIVING in the place of better ones."""
    return [LIVING.variants[number].remark.replace("{why}", why)]


def test_the_best_variant_is_taken_without_a_word(kernel: Kernel) -> None:
    launch = started()
    assert launch.runs == {"hook": "tp_btf", "transport": "ring", "ledger": "storage"}
    assert launch.said == []
    assert [path for path, _ in kernel.looked] == ["life.typed.bpf.o"]
    assert "ledger_seed" in kernel.taken
    assert not [name for name in kernel.taken if name.startswith("living")]


@pytest.mark.parametrize("hook", ["tp_btf", "raw_tp"])
def test_listeners_are_looked_for_by_those_alone_who_show_what_they_accept(
    kernel: Kernel, hook: str
) -> None:
    started(Connect(sync_errors="off"), hook)
    assert {"client", "client_again"} <= kernel.taken
    assert not kernel.taken & {"server", "server_again", "ledger_seed"}
    started(Connect(Selection(roles=frozenset({Role.ROLE_SERVER}))), hook)
    assert {"server", "server_again"} <= kernel.taken
    assert not kernel.taken & {"client", "client_again"}
    assert ("ledger_seed" in kernel.taken) == (hook == "tp_btf")


@pytest.mark.parametrize("hook", ["tp_btf", "raw_tp"])
def test_what_syn_drops_costs_is_paid_by_who_asks(kernel: Kernel, hook: str) -> None:
    started(Drop(), hook)
    assert "drop" in kernel.taken
    assert not [name for name in kernel.taken if name.startswith("syn_")]
    started(Drop(asked=DropOptions(syn_drops=True)), hook)
    wanted = {"syn_drop", "syn_seed"} if hook == "tp_btf" else {"syn_drop"}
    assert {name for name in kernel.taken if name.startswith("syn_")} == wanted


@pytest.mark.parametrize("command", [Drop(), LIFE, Rtt(), Trace()], ids=lambda each: each.name)
def test_a_seed_that_is_refused_is_left_out_alone(kernel: Kernel, command: Command) -> None:
    kernel.refuses = {"ledger_seed": errno.EPERM}
    launch = started(command)
    assert launch.runs["hook"] == "tp_btf"
    first, second = (taken for _, taken in kernel.looked)
    assert first - second == {"ledger_seed"}
    assert len([line for line in launch.said if "before the start" in line]) == 1
    assert "Operation not permitted" in launch.said[0]


@pytest.mark.usefixtures("kernel")
def test_owners_of_attempts_are_in_slots() -> None:
    assert started(Connect(sync_errors="off")).runs == {
        "hook": "tp_btf",
        "transport": "ring",
        "ledger": "slots",
    }


def test_so_is_one_that_is_refused_when_it_is_to_run(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attach(_launch: Launch, _obj: Object, programs: list[Program]) -> None:
        if any(program.name == "ledger_seed" for program in programs):
            log = (
                "libbpf: prog 'ledger_seed': failed to attach to iterator: Operation not permitted"
            )
            raise LibbpfError("bpf_program__attach_iter: no", errno.EPERM, log)

    monkeypatch.setattr(Launch, "_attach", attach)
    launch = started()
    assert launch.runs["hook"] == "tp_btf"
    assert "ledger_seed" not in kernel.taken
    assert "Operation not permitted" in launch.said[0]


def test_what_is_open_is_looked_for_in_the_ledger(kernel: Kernel) -> None:
    launch = started(OPEN)
    assert {"living", "living_slots"} <= kernel.taken
    assert "living_files" not in kernel.taken
    assert launch.said == []


@pytest.mark.parametrize("lacking", [MAP_ELEM, STORAGE_ELEM])
def test_or_in_files_where_iterators_over_maps_are_missing(
    kernel: Kernel, lacking: Feature
) -> None:
    kernel.lacks = {lacking}
    launch = started(OPEN)
    assert launch.runs["hook"] == "tp_btf"
    assert {name for name in kernel.taken if name.startswith("living")} == {"living_files"}
    assert len(kernel.looked) == 1
    assert launch.said == open_by(1, f"{lacking.name}: no")


def test_or_where_they_turn_out_to_be_refused(kernel: Kernel) -> None:
    kernel.refuses = {"living": errno.EPERM}
    launch = started(OPEN)
    assert launch.runs["hook"] == "tp_btf"
    assert {name for name in kernel.taken if name.startswith("living")} == {"living_files"}
    assert launch.said == open_by(1, "Operation not permitted")


def test_or_not_at_all(kernel: Kernel) -> None:
    kernel.lacks = {MAP_ELEM, TASK_FILE}
    launch = started(OPEN)
    assert launch.runs["hook"] == "tp_btf"
    assert not [name for name in kernel.taken if name.startswith("living")]
    assert launch.said == open_by(3, "map_elem: no; task_file: no")


def test_raw_programs_have_an_iterator_over_their_hash_alone(kernel: Kernel) -> None:
    launch = started(OPEN, "raw_tp")
    assert launch.runs == {"hook": "raw_tp", "transport": "ring", "ledger": "hash"}
    assert {name for name in kernel.taken if name.startswith("living")} == {
        "living",
        "living_asked",
    }
    assert launch.said == []


def test_raw_programs_answer_questions_where_there_is_no_iterator(kernel: Kernel) -> None:
    kernel.lacks = {MAP_ELEM}
    launch = started(OPEN, "raw_tp")
    assert {name for name in kernel.taken if name.startswith("living")} == {"living_asked"}
    assert launch.said == []
    kernel.refuses = {"living_asked": errno.EACCES}
    launch = started(OPEN, "raw_tp")
    assert not [name for name in kernel.taken if name.startswith("living")]
    assert launch.said == open_by(3, "map_elem: no; Permission denied")


def test_without_a_look_nobody_answers(kernel: Kernel) -> None:
    started(hook="raw_tp")
    assert not [name for name in kernel.taken if name.startswith("living")]


def test_a_slower_hook_is_told_with_the_reason(kernel: Kernel) -> None:
    kernel.lacks = {COMPARE_AND_SWAP}
    launch = started()
    assert launch.runs["hook"] == "raw_tp"
    assert [path for path, _ in kernel.looked] == ["life.raw.bpf.o"]
    assert launch.said == [
        "raw_tp runs in the place of tp_btf, each event takes more time (compare_and_swap: no)"
    ]


def test_where_nothing_is_taken_it_is_told_what_doctor_does(kernel: Kernel) -> None:
    kernel.refuses = {"state": errno.EINVAL}
    with pytest.raises(CgnetError, match="cgnet doctor") as raised:
        started()
    assert raised.value.exit_status == ExitStatus.UNSUPPORTED
    assert [path for path, _ in kernel.looked] == ["life.typed.bpf.o", "life.raw.bpf.o"]


def test_only_typed_programs_are_refused(kernel: Kernel) -> None:
    kernel.lacks, kernel.refuses = {SOCKET_STORAGE}, {"send_reset": errno.EINVAL}
    assert started().said == [
        "raw_tp runs in the place of tp_btf, each event takes more time (socket_storage: no)"
    ]
    kernel.lacks = set()
    assert started().said == [
        "raw_tp runs in the place of tp_btf, each event takes more time (bpf_object__load: no)"
    ]


def test_perf_buffers_are_told_unless_they_were_asked_for(kernel: Kernel) -> None:
    kernel.lacks = {RING_BUFFER, COMPARE_AND_SWAP}
    launch = started()
    assert launch.runs == {"hook": "raw_tp", "transport": "perf", "ledger": "hash"}
    assert "perf buffers take the place of the ring buffer (ring_buffer: no)" in launch.said
    assert started(hook="raw_tp", transport="perf").said == []


@pytest.mark.parametrize(("number", "told"), [
    (errno.EMFILE, "ulimit -n"), (errno.ENFILE, "fs.file-max"), (errno.ENOMEM, "--buffer"),
])  # fmt: skip
def test_a_shortage_says_nothing_of_the_kernel(kernel: Kernel, number: int, told: str) -> None:
    kernel.refuses = {"state": number}
    with pytest.raises(CgnetError, match=told) as raised:
        started()
    assert raised.value.exit_status == ExitStatus.FAILED
    assert len(kernel.looked) == 1


def test_a_signal_is_no_refusal(kernel: Kernel) -> None:
    kernel.refuses = {"state": errno.EAGAIN}
    with pytest.raises(StoppedError):
        started()
    assert len(kernel.looked) == 1


def test_who_is_stopped_before_the_end_of_the_start_attaches_nothing(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached: list[Any] = []
    monkeypatch.setattr(Launch, "_attach", lambda *_: attached.append(None))
    with pytest.raises(StoppedError):
        started(stopped=lambda: bool(kernel.looked))
    assert len(kernel.looked) == 1
    assert attached == []


class Attaching:
    """Stands for an object: what it attaches, and how."""

    def __init__(self, error: LibbpfError | None = None) -> None:
        self.did: list[tuple[Any, ...]] = []
        self.error = error

    def attach(self, program: Any) -> None:
        self.did.append((program.name,))
        if self.error:
            raise self.error

    def attach_kprobe(self, program: Any, function: str, *, multi: bool) -> None:
        self.did.append((program.name, function, multi))


def attached(way: str, error: LibbpfError | None = None) -> tuple[str, list[Any], Launch]:
    """Attach a program at a function; return its name, what was done, and the launch."""
    kind = "fentry" if way == "fentry" else "kprobe"
    name = f"ip_rcv__v4__ip_rcv__{kind}"
    program: Any = SimpleNamespace(name=name, hook=kind, target="ip_rcv", stage=("ip_rcv", "v4"))
    variant = Variant(way, code=way, function="ip_rcv", programs=frozenset({name}))
    launch = Launch(Trace(), Filters(), RING)
    launch._plan = {"ip_rcv": Chosen(Job("ip_rcv", (variant,), optional=True), variant, ())}
    obj: Any = Attaching(error)
    launch._attach_one(obj, program)
    return name, obj.did, launch


@pytest.mark.parametrize(
    ("way", "more"),
    [("fentry", ()), ("kprobe", ("ip_rcv", False)), ("kprobe.multi", ("ip_rcv", True))],
)
@pytest.mark.usefixtures("mounted")
def test_each_way_attaches_as_it_must(way: str, more: tuple[Any, ...]) -> None:
    name, did, launch = attached(way)
    assert did == [(name, *more)]
    assert launch._unseen == {}


@pytest.mark.usefixtures("mounted")
def test_a_function_that_is_refused_after_all_costs_its_stage_alone() -> None:
    _, _, launch = attached("fentry", LibbpfError("attach", errno.EBUSY))
    assert launch._unseen == {"ip_rcv": "ip_rcv: Device or resource busy"}


def test_errors_that_the_c_library_does_not_know_have_names() -> None:
    assert strerror(errno.ENOENT) == "No such file or directory"
    assert strerror(524) == "Operation is not supported (ENOTSUPP)"
    for number in range(512, 531):
        assert "Unknown" not in strerror(number) or number == 520
