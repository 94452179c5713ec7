# SPDX-License-Identifier: BSD-2-Clause
"""Which variant runs on kernels that refuse some, and what is said of it."""

from __future__ import annotations

import errno
from functools import partialmethod
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
from cgnet.kernel.function_hooks import stage_of
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
from cgnet.kernel.variants import LIVING, SYNC_ERRORS, Job
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
        self.refuses_to_attach: dict[str, int] = {}
        self.attached: list[tuple[Any, ...]] = []
        self.looked: list[tuple[str, frozenset[str]]] = []  # the file, and what was taken of it

    def load(self, obj: Object) -> None:
        taken = frozenset(program.name for program in obj.programs if program.name in obj._kept)
        self.looked.append((obj.path.name, taken))
        for name in sorted(taken & self.refuses.keys()):
            number = self.refuses[name]
            raise LibbpfError("bpf_object__load: no", number, SAID.format(name, name))

    def attach(self, name: str, program: Program, *_: Any, **options: Any) -> None:
        if number := self.refuses_to_attach.get(program.name):
            raise LibbpfError(f"{name}: no", number, SAID.format(program.name, program.name))
        self.attached.append((name, program.name, *options.values()))

    def trial(self, feature: Feature) -> Answer:
        return Answer(ok=feature not in self.lacks, why="no" if feature in self.lacks else "")

    @property
    def taken(self) -> set[str]:
        """What the last look took."""
        return set(self.looked[-1][1])


def _attach(_obj: Object, kernel: Kernel, *arguments: Any, **options: Any) -> None:
    kernel.attach(*arguments, **options)


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
    monkeypatch.setattr(Object, "share_maps", lambda *_: None)
    for name in ("attach", "attach_kprobe"):
        monkeypatch.setattr(Object, name, partialmethod(_attach, made, name))
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
    assert {"ledger_seed", "ledger_listeners"} <= kernel.taken
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
    assert first - second == {"ledger_seed", "ledger_listeners"}
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


class AtFunctions(Trace):
    """Trace with some of its stages at functions, by one way."""

    def __init__(self, *stages: str, way: str = "fentry") -> None:
        super().__init__(functions=way)
        self._stages = stages

    def stages(self) -> list[Job]:
        """Return their jobs, each with its first variant alone."""
        found = (each for each in super().stages() if stage_of(each) in self._stages)
        return [each._replace(variants=each.variants[:1]) for each in found]


@pytest.fixture
def at_functions(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Let every trial at a function work."""
    monkeypatch.setattr(probes, "trial_at", lambda *_: Answer(ok=True))
    return kernel


TCP_RCV = {f"tcp_rcv__{part}__tcp_{part}_rcv__fentry" for part in ("v4", "v6")}


@pytest.mark.parametrize(("hook", "way"), [("tp_btf", "typed"), ("raw_tp", "raw")])
def test_programs_at_functions_run_beside_either_object(
    at_functions: Kernel, hook: str, way: str
) -> None:
    launch = started(AtFunctions("tcp_rcv"), hook)
    paths = [path for path, _ in at_functions.looked]
    assert paths == [f"trace.{way}.bpf.o", "trace_functions.raw.bpf.o"]
    assert at_functions.taken == TCP_RCV
    assert launch.runs["not_seen"] == []


@pytest.mark.parametrize(("way", "how"), [
    ("fentry", ("attach",)), ("kprobe", ("attach_kprobe", False)),
    ("kprobe.multi", ("attach_kprobe", True)),
])  # fmt: skip
def test_each_way_attaches_as_it_must(
    at_functions: Kernel, monkeypatch: pytest.MonkeyPatch, way: str, how: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(Object, "use_multi", lambda *_: None)
    started(AtFunctions("tcp_backlog", way=way))
    kind = "fentry" if way == "fentry" else "kprobe"
    first, *more = how
    name = f"tcp_backlog__both__tcp_add_backlog__{kind}"
    assert at_functions.attached == [(first, name, *more)]


@pytest.mark.parametrize(("stages", "left", "unseen"), [
    (("tcp_rcv",), [{"tcp_rcv__v4__tcp_v4_rcv__fentry"}], "tcp_rcv of IPv6"),
    (("tcp_backlog", "tcp_rcv"), [TCP_RCV], "tcp_backlog"),
    (("tcp_backlog",), [], "tcp_backlog"),
])  # fmt: skip
def test_a_part_of_a_stage_whose_program_is_refused_is_left_out_alone(
    at_functions: Kernel, stages: tuple[str, ...], left: list[set[str]], unseen: str
) -> None:
    at_functions.refuses = {
        "tcp_backlog__both__tcp_add_backlog__fentry": errno.EACCES,
        **({} if len(stages) > 1 else {"tcp_rcv__v6__tcp_v6_rcv__fentry": errno.EACCES}),
    }
    launch = started(AtFunctions(*stages))
    assert launch.runs["hook"] == "tp_btf"
    first, _, *later = at_functions.looked
    assert first[0] == "trace.typed.bpf.o"
    assert [taken for _, taken in later] == left
    assert launch.runs["not_seen"] == [unseen]
    assert launch.said == [f"not seen here: {unseen}; cgnet doctor tells why"]


def test_a_function_that_is_refused_is_seen_by_the_next_way(at_functions: Kernel) -> None:
    at_functions.refuses = {"tcp_backlog__both__tcp_add_backlog__fentry": errno.EACCES}
    launch = started(Trace())
    assert "tcp_backlog__both__tcp_add_backlog__kprobe" in at_functions.taken
    assert [path for path, _ in at_functions.looked].count("trace.typed.bpf.o") == 1
    assert launch.runs["not_seen"] == []


def test_a_function_that_is_refused_after_all_costs_its_stage_alone(at_functions: Kernel) -> None:
    at_functions.refuses_to_attach = {"tcp_rcv__v6__tcp_v6_rcv__fentry": errno.EBUSY}
    launch = started(AtFunctions("tcp_backlog", "tcp_rcv"))
    assert launch.runs["not_seen"] == ["tcp_rcv"]
    assert len(at_functions.attached) == 2
    assert len(at_functions.looked) == 2


def test_errors_of_connect_are_seen_in_another_way_where_one_is_refused(kernel: Kernel) -> None:
    kernel.refuses = {"tcp_v4_connect_fexit": errno.EACCES}
    launch = started(Connect())
    assert launch.runs["hook"] == "tp_btf"
    assert {"tcp_v4_connect_kprobe", "tcp_v6_connect_kretprobe"} <= kernel.taken
    assert [path for path, _ in kernel.looked].count("connect.typed.bpf.o") == 1
    assert launch.said == [SYNC_ERRORS.variants[1].remark.replace("{why}", "Permission denied")]


def test_main_programs_are_loaded_anew_where_nothing_sees_errors_of_connect(
    kernel: Kernel,
) -> None:
    kernel.refuses = {"tcp_v4_connect_fexit": errno.EACCES}
    kernel.refuses_to_attach = {"tcp_v4_connect_kprobe": errno.ENOENT}
    launch = started(Connect())
    assert [path.partition(".")[0] for path, _ in kernel.looked] == [
        "connect", "connect_functions", "connect_functions", "connect",
    ]  # fmt: skip
    assert launch.runs["hook"] == "tp_btf"
    assert launch.said == [SYNC_ERRORS.variants[-1].remark]


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


def test_errors_that_the_c_library_does_not_know_have_names() -> None:
    assert strerror(errno.ENOENT) == "No such file or directory"
    assert strerror(524) == "Operation is not supported (ENOTSUPP)"
    for number in range(512, 531):
        assert "Unknown" not in strerror(number) or number == 520
