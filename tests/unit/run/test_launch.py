# SPDX-License-Identifier: BSD-2-Clause
"""Which variant runs on kernels that refuse some, and what is said of it."""

from __future__ import annotations

import errno
from functools import partialmethod
from typing import TYPE_CHECKING, Any

import pytest

from cgnet.commands import life
from cgnet.commands.connect.attempts import sync_error_sets
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
from cgnet.loader import Object
from cgnet.records._layouts import LIFE_EVENT, Role
from cgnet.run.launch import Launch
from cgnet.run.program_sets import ProgramSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cgnet.loader import Program

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
    monkeypatch.setattr(Object, "load", partialmethod(lambda obj, kernel: kernel.load(obj), made))
    monkeypatch.setattr(Object, "resize_inner", lambda *_: None)  # makes a map, which takes rights
    monkeypatch.setattr(Object, "ring", lambda *_: None)
    monkeypatch.setattr(Object, "share_maps", lambda *_: None)
    monkeypatch.setattr(Object, "attach", lambda *_: None)
    monkeypatch.setattr(Launch, "_attach", lambda *_: None)
    return made


def started(
    name: str = "life", program_sets: Iterable[Any] = (ProgramSet(),), hook: str | None = None,
    transport: str | None = None, stopped: Callable[[], bool] = lambda: False,
) -> Launch:  # fmt: skip
    launch = Launch(name, (LIFE_EVENT,) if name == "life" else (), Filters(), RING, stopped=stopped)
    obj, chosen = launch.start(list(program_sets), None, hook, transport)
    obj.close()
    launch.said = launch.remarks(chosen)  # type: ignore[attr-defined]
    return launch


def said(launch: Launch) -> list[str]:
    return launch.said  # type: ignore[attr-defined, no-any-return]


def with_looks() -> list[Any]:
    return [life.PROGRAMS._replace(looks=life.LOOKS)]


def test_the_best_variant_is_taken_without_a_word(kernel: Kernel) -> None:
    launch = started()
    assert launch.runs == {"hook": "tp_btf", "transport": "ring", "ledger": "storage"}
    assert said(launch) == []
    assert [path for path, _ in kernel.looked] == ["life.typed.bpf.o"]
    assert "ledger_seed" in kernel.taken
    assert not [name for name in kernel.taken if name.startswith("living")]


def test_listeners_are_looked_for_by_those_alone_who_show_what_they_accept(kernel: Kernel) -> None:
    started("connect")
    assert "client" in kernel.taken
    assert not kernel.taken & {"server", "ledger_seed"}
    launch = Launch("connect", (), Filters(Selection(roles=frozenset({Role.ROLE_SERVER}))), RING)
    launch.start([ProgramSet()], None, None)[0].close()
    assert {"server", "ledger_seed"} <= kernel.taken


@pytest.mark.parametrize("name", ["drop", "life", "rtt", "trace"])
def test_a_seed_that_is_refused_is_left_out_alone(kernel: Kernel, name: str) -> None:
    kernel.refuses = {"ledger_seed": errno.EPERM}
    launch = started(name)
    assert launch.runs["hook"] == "tp_btf"
    first, second = (taken for _, taken in kernel.looked)
    assert first - second == {"ledger_seed"}
    assert len(said(launch)) == 1
    assert "before the start" in said(launch)[0]
    assert "Operation not permitted" in said(launch)[0]


@pytest.mark.usefixtures("kernel")
def test_owners_of_attempts_are_in_slots() -> None:
    assert started("connect").runs == {"hook": "tp_btf", "transport": "ring", "ledger": "slots"}


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
    assert "Operation not permitted" in said(launch)[0]


def test_what_is_open_is_looked_for_in_the_ledger(kernel: Kernel) -> None:
    launch = started(program_sets=with_looks())
    assert {"living", "living_slots"} <= kernel.taken
    assert "living_files" not in kernel.taken
    assert said(launch) == []


@pytest.mark.parametrize("lacking", [MAP_ELEM, STORAGE_ELEM])
def test_or_in_files_where_iterators_over_maps_are_missing(
    kernel: Kernel, lacking: Feature
) -> None:
    kernel.lacks = {lacking}
    launch = started(program_sets=with_looks())
    assert launch.runs["hook"] == "tp_btf"
    assert {name for name in kernel.taken if name.startswith("living")} == {"living_files"}
    assert len(kernel.looked) == 1
    assert said(launch) == [f"{life.FILES_ONLY} ({lacking.name}: no)"]


def test_or_where_they_turn_out_to_be_refused(kernel: Kernel) -> None:
    kernel.refuses = {"living": errno.EPERM}
    launch = started(program_sets=with_looks())
    assert launch.runs["hook"] == "tp_btf"
    assert {name for name in kernel.taken if name.startswith("living")} == {"living_files"}
    assert said(launch) == [f"{life.FILES_ONLY} (Operation not permitted)"]


def test_or_not_at_all(kernel: Kernel) -> None:
    kernel.lacks = {MAP_ELEM, TASK_FILE}
    launch = started(program_sets=with_looks())
    assert launch.runs["hook"] == "tp_btf"
    assert not [name for name in kernel.taken if name.startswith("living")]
    assert said(launch) == [f"{life.NO_LIVING} (map_elem: no; task_file: no)"]


def test_raw_programs_have_an_iterator_over_their_hash_alone(kernel: Kernel) -> None:
    launch = started(program_sets=with_looks(), hook="raw_tp")
    assert launch.runs == {"hook": "raw_tp", "transport": "ring", "ledger": "hash"}
    assert {name for name in kernel.taken if name.startswith("living")} == {
        "living",
        "living_asked",
    }
    assert said(launch) == []


def test_raw_programs_answer_questions_where_there_is_no_iterator(kernel: Kernel) -> None:
    kernel.lacks = {MAP_ELEM}
    launch = started(program_sets=with_looks(), hook="raw_tp")
    assert {name for name in kernel.taken if name.startswith("living")} == {"living_asked"}
    assert said(launch) == []
    kernel.refuses = {"living_asked": errno.EACCES}
    launch = started(program_sets=with_looks(), hook="raw_tp")
    assert not [name for name in kernel.taken if name.startswith("living")]
    assert said(launch) == [f"{life.NO_LIVING} (map_elem: no; Permission denied)"]


def test_without_a_look_nobody_answers(kernel: Kernel) -> None:
    started(program_sets=[life.PROGRAMS], hook="raw_tp")
    assert not [name for name in kernel.taken if name.startswith("living")]


AT_FUNCTIONS = (
    "ip_rcv__v4__ip_rcv_core__fentry",
    "tcp_rcv__v4__tcp_v4_rcv__fentry",
    "tcp_rcv__v6__tcp_v6_rcv__fentry",
)


def at_functions(*stages: str) -> list[Any]:
    names = [name for name in AT_FUNCTIONS if name.partition("__")[0] in stages]
    return [ProgramSet(functions=dict.fromkeys(names, "fentry"), unseen={})]


@pytest.mark.parametrize("hook", ["tp_btf", "raw_tp"])
def test_programs_at_functions_run_beside_either_object(kernel: Kernel, hook: str) -> None:
    launch = started("trace", at_functions("ip_rcv"), hook=hook)
    assert [path for path, _ in kernel.looked] == [
        f"trace.{'typed' if hook == 'tp_btf' else 'raw'}.bpf.o", "trace_functions.raw.bpf.o",
    ]  # fmt: skip
    assert kernel.taken == {"ip_rcv__v4__ip_rcv_core__fentry"}
    assert launch.unseen == {}


@pytest.mark.parametrize(("stages", "left"), [
    (("ip_rcv",), []), (("ip_rcv", "tcp_rcv"), [{"ip_rcv__v4__ip_rcv_core__fentry"}]),
])  # fmt: skip
def test_a_stage_whose_program_is_refused_is_left_out_alone(
    kernel: Kernel, stages: tuple[str, ...], left: list[set[str]]
) -> None:
    refused = "tcp_rcv__v6__tcp_v6_rcv__fentry" if left else "ip_rcv__v4__ip_rcv_core__fentry"
    kernel.refuses = {refused: errno.EACCES}
    launch = started("trace", at_functions(*stages))
    assert launch.runs["hook"] == "tp_btf"
    first, _, *later = kernel.looked
    assert first[0] == "trace.typed.bpf.o"
    assert [taken for _, taken in later] == left
    assert launch.unseen == {refused.partition("__")[0]: "Permission denied"}
    assert said(launch) == [f"not seen here: {refused.partition('__')[0]}; cgnet doctor tells why"]


def test_errors_of_connect_are_seen_in_another_way_where_one_is_refused(kernel: Kernel) -> None:
    kernel.refuses = {"tcp_v4_connect_fexit": errno.EACCES}
    launch = started("connect", sync_error_sets("auto", {Role.ROLE_CLIENT}))
    assert launch.runs["hook"] == "tp_btf"
    assert {"tcp_v4_connect_kprobe", "tcp_v6_connect_kretprobe"} <= kernel.taken


def test_a_slower_hook_is_told_with_the_reason(kernel: Kernel) -> None:
    kernel.lacks = {COMPARE_AND_SWAP}
    launch = started()
    assert launch.runs["hook"] == "raw_tp"
    assert [path for path, _ in kernel.looked] == ["life.raw.bpf.o"]
    assert said(launch) == [
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
    assert said(started()) == [
        "raw_tp runs in the place of tp_btf, each event takes more time (socket_storage: no)"
    ]
    kernel.lacks = set()
    assert said(started()) == [
        "raw_tp runs in the place of tp_btf, each event takes more time (bpf_object__load: no)"
    ]


def test_perf_buffers_are_told_unless_they_were_asked_for(kernel: Kernel) -> None:
    kernel.lacks = {RING_BUFFER, COMPARE_AND_SWAP}
    launch = started()
    assert launch.runs == {"hook": "raw_tp", "transport": "perf", "ledger": "hash"}
    assert said(launch)[0] == "perf buffers take the place of the ring buffer (ring_buffer: no)"
    assert said(started(hook="raw_tp", transport="perf")) == []


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
