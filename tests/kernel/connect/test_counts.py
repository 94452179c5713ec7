# SPDX-License-Identifier: BSD-2-Clause
"""--count: nothing is counted twice or left out, and each --by names what it counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compare import inner, totals
from harness import (
    HIERARCHY,
    run,
    tracing,
    wait_until,
)
from servers import serving

if TYPE_CHECKING:
    from harness import Row, Tracer
    from hidden_events import Witness

MUCH = 100_000


def settled(tracer: Tracer, made: int, witness: Witness) -> list[Row]:
    """End it: what it counted and lost is what was made, but for what no BPF program saw."""
    rows = tracer.stop()
    (summary,) = tracer.rows("summary")
    assert summary["records"] == len(rows)
    counted = sum(row["count"] for row in rows) + summary["lost"]
    unseen = sum(change.decides() for change in witness.changes())
    assert made - unseen <= counted <= made, (made, counted, unseen)
    return rows


def test_hundred_thousand_connections(group: Path, witness: Witness) -> None:
    """Counted by each hook, in one print and in many, while they are made."""
    options = ["-c", "--by", "cgroup", "--cgroup", str(group)]
    with (
        tracing("--hook", "tp_btf", *options, "-i", "0.2") as often,
        tracing("--hook", "raw_tp", *options) as once,
    ):
        made = run("load", MUCH, 4, cgroups=(group,))
        assert sum(row["count"] for row in made) == MUCH
        prints = settled(often, MUCH, witness)
        (row,) = settled(once, MUCH, witness)
        assert often.rows("summary")[0]["lost"] == once.rows("summary")[0]["lost"] == 0
    assert len(prints) > 3
    for each in (*prints, row):
        assert (each["cgroup"], each["type"]) == (inner(group, HIERARCHY), "connect")
        assert set(each) == {"schema", "type", "time", "ts_ns", "cgroup", "count"}


def test_more_keys_than_a_table_holds(group: Path, witness: Witness) -> None:
    with tracing("-c", "--by", "sport,daddr,pid", "--cgroup", str(group)) as tracer:
        run("load", MUCH, 2, cgroups=(group,))
        rows = settled(tracer, MUCH, witness)
        lost = sum(row["count"] for row in tracer.rows("lost") if row["where"] == "counts")
        assert lost == tracer.rows("summary")[0]["lost"]
    assert lost > 0
    assert len(rows) == 65536
    assert any("lost" in line and "keys" in line for line in tracer.said)


def test_by_owner(hook: str, group: Path, port: int, netns: str) -> None:
    below = group / "a" / "b"
    below.mkdir(parents=True)
    keys = "pid,comm,uid,netns,cgroup"
    with tracing("--hook", hook, "-c", "--by", keys, "--cgroup", str(group)) as tracer:
        one = run("connect", "127.0.0.1", port, 3, cgroups=(below,))
        two = run("as_comm", "cgt-count", "127.0.0.1", port, cgroups=(group,))
        three = run("as_user", 65534, "127.0.0.1", port, cgroups=(group,))
        four = run("connect", "127.0.0.1", 1, 2, cgroups=(group,), netns=netns)
        run("connect", "127.0.0.1", port)
        rows = tracer.stop()
    here, there = Path("/proc/self/ns/net").stat().st_ino, Path(f"/run/netns/{netns}").stat().st_ino
    top = inner(group, HIERARCHY)
    expected = {
        (one[0]["pid"], 0, here, f"{top}/a/b"): 3,
        (two[0]["pid"], 0, here, top): 1,
        (three[0]["pid"], 65534, here, top): 1,
        (four[0]["pid"], 0, there, top): 2,
    }
    assert totals(rows, "pid", "uid", "netns", "cgroup") == expected
    assert {row["comm"] for row in rows if row["pid"] == two[0]["pid"]} == {"cgt-count"}
    assert [row["count"] for row in rows] == [3, 2, 1, 1]
    assert len(rows) == 4


def test_by_flow(hook: str, netns: str) -> None:
    flows = ["127.0.0.1|5000|127.0.0.1|80", "127.0.0.2|5000|127.0.0.1|80", "::1|5000|::1|81",
             "127.0.0.1|5001|127.0.0.9|80", "::ffff:127.0.0.1|5000|::ffff:127.0.0.1|80"]  # fmt: skip
    with (
        serving("::", "dual", port=80, netns=netns),
        tracing(
            "--hook",
            hook,
            "-c",
            "--by",
            "saddr,sport",
            "--by",
            "daddr,dport,role,result",
            "--netns",
            netns,
        ) as tracer,
    ):
        run("flows", *flows[:4], netns=netns)
        run("flows", flows[1], flows[4], netns=netns)
        rows = tracer.stop()
    names = ("saddr", "sport", "daddr", "dport", "role", "result", "count")
    assert sorted(tuple(row[name] for name in names) for row in rows) == [
        ("127.0.0.1", 5000, "127.0.0.1", 80, "client", "ok", 2),
        ("127.0.0.1", 5001, "127.0.0.9", 80, "client", "ok", 1),
        ("127.0.0.2", 5000, "127.0.0.1", 80, "client", "ok", 2),
        ("::1", 5000, "::1", 81, "client", "ECONNREFUSED", 1),
    ]


def test_by_prefix_and_depth(hook: str, group: Path, netns: str) -> None:
    below = group / "a" / "b"
    below.mkdir(parents=True)
    (group / "c").mkdir()
    keys = "saddr/8,daddr/24,cgroup/2"
    with tracing("--hook", hook, "-c", "--by", keys, "--cgroup", str(group)) as tracer:
        for place, address in (
            (below, "127.3.4.5"), (below, "127.3.4.250"), (group / "a", "127.3.4.9"),
            (group / "a", "127.3.5.9"), (group / "c", "127.3.4.5"), (group, "::1"),
        ):  # fmt: skip
            run("connect", address, 1, cgroups=(place,), netns=netns)
        rows = tracer.stop()
    top = inner(group, HIERARCHY)
    names = ("saddr", "daddr", "cgroup", "count")
    assert sorted(tuple(row[name] for name in names) for row in rows) == [
        ("127.0.0.0/8", "127.3.4.0/24", f"{top}/a", 3),
        ("127.0.0.0/8", "127.3.4.0/24", f"{top}/c", 1),
        ("127.0.0.0/8", "127.3.5.0/24", f"{top}/a", 1),
        ("::/8", "::/24", top, 1),
    ]


def test_by_container_is_the_default(group: Path, port: int) -> None:
    """What is in no container goes by its cgroup."""
    with tracing("-c", "--cgroup", str(group)) as tracer:
        run("connect", "127.0.0.1", port, 2, cgroups=(group,))
        run("connect", "127.0.0.1", 1, cgroups=(group,))
        rows = tracer.stop()
    shown = [tuple(row[n] for n in ("container", "cgroup", "result", "count")) for row in rows]
    top = inner(group, HIERARCHY)
    assert shown == [(None, top, "ok", 2), (None, top, "ECONNREFUSED", 1)]


def test_by_selected_is_a_row_for_each_cgroup_given(
    hook: str, v1: Path, v2: Path, port: int
) -> None:
    """Also for short-lived cgroups that match a pattern."""
    (v1 / "in").mkdir()
    given = [f"{v1}/[i]n/g*", str(v2), f"{v1}/a"]
    (v1 / "a" / "b").mkdir(parents=True)
    options = [word for value in given for word in ("--cgroup", value)]
    with tracing("--hook", hook, "-c", "--by", "selected", *options) as tracer:
        run("connect", "127.0.0.1", port, 3, cgroups=(v1 / "a" / "b",))
        run("connect", "127.0.0.1", port, 2, cgroups=(v2,))
        run("connect", "127.0.0.1", port, 7, cgroups=(v1,))
        run("short_lived", v1 / "in", 30, port)
        rows = tracer.stop()
    assert totals(rows, "selected") == {(given[0],): 30, (given[1],): 2, (given[2],): 3}


def test_by_selected_of_two_hierarchies(v1: Path, v2: Path, port: int) -> None:
    """A new cgroup of one matches no pattern; the other one was given."""
    options = ["--cgroup", f"{v1}/no*", "--cgroup", str(v2)]
    with tracing("-c", "--by", "selected", *options) as tracer:
        run("short_lived", v1, 30, port, cgroups=(v2,))
        rows = tracer.stop()
    assert totals(rows, "selected") == {(str(v2),): 30}


def test_rows_whose_filters_match_are_counted(hook: str, group: Path, port: int) -> None:
    options = ["--cgroup", str(group), "--result", "!ok", "--dport", "1", "-c", "--by", "result"]
    with tracing("--hook", hook, *options) as tracer:
        run("flows", f"||127.0.0.1|{port}", "||127.0.0.1|1", "||127.0.0.1|2", cgroups=(group,))
        rows = tracer.stop()
    assert totals(rows, "result") == {("ECONNREFUSED",): 1}


def test_table_in_a_pipe_has_one_header(group: Path, port: int) -> None:
    options = ["-c", "--by", "comm,result", "-i", "0.1", "--cgroup", str(group)]
    with tracing(*options, output="table") as tracer:
        for number in range(1, 4):
            run("as_comm", f"cgt-{number}", "127.0.0.1", port, cgroups=(group,))
            wait_until(
                "a print", lambda name=f"cgt-{number}": any(name in line for line in tracer.lines)
            )
        tracer.stop()
    header, *rows = (line.split() for line in tracer.lines)
    assert header == ["TIME", "COMM", "RESULT", "COUNT"]
    assert [row[1:] for row in rows] == [[f"cgt-{number}", "ok", "1"] for number in (1, 2, 3)]
    assert not any("\x1b" in line for line in tracer.lines)


def test_csv_of_counts(group: Path, port: int) -> None:
    with tracing("-c", "--by", "dport,result", "--cgroup", str(group), output="csv") as tracer:
        run("connect", "127.0.0.1", port, 5, cgroups=(group,))
        tracer.stop()
    header, row = (line.strip().split(",") for line in tracer.lines[:2])
    assert dict(zip(header, row, strict=True)).items() >= {
        "dport": str(port), "result": "ok", "count": "5",
    }.items()  # fmt: skip
