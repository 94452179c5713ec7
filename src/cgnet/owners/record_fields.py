# SPDX-License-Identifier: BSD-2-Clause
"""A record's owner fields: from the ledger's ids to cgroup, container, pod and unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.owners.cgroup_paths import Facts
from cgnet.records._layouts import OWNER, OwnerSource
from cgnet.records.fields import FieldGroup
from cgnet.records.schema import OWNER_PART
from cgnet.text import decode

if TYPE_CHECKING:
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes

SOURCES = {source: source.name.removeprefix("OWNER_").lower() for source in OwnerSource}
OWNER_FIELDS = (
    "pid", "uid", "comm", "hierarchy", "cgroup", "cgroup_id", "container", "container_id", "image",
    "runtime", "pod", "pod_namespace", "unit", "labels", "owner_source",
)  # fmt: skip
CGROUP = OWNER_FIELDS.index("cgroup")
FACTS = slice(OWNER_FIELDS.index("container"), OWNER_FIELDS.index("owner_source"))
UNKNOWN = SOURCES[OwnerSource.OWNER_UNKNOWN]


def owner_group(names: CgroupNames, runtimes: Runtimes) -> FieldGroup:
    """Return the group of a record's owner. Lookups never block: unknown values are null."""

    def values(part: bytes) -> tuple[Any, ...]:
        cgroup_id, hierarchy, source, _, _, pid, uid, comm = OWNER.packed.unpack(part)
        if source == OwnerSource.OWNER_UNKNOWN:
            return (*[None] * (len(OWNER_FIELDS) - 1), UNKNOWN)
        known = source < OwnerSource.OWNER_SK_CGRP  # else only the cgroup is known
        path = names.path(hierarchy, cgroup_id)
        facts = runtimes.of(path).facts if path else Facts()
        return (
            pid if known and (pid or source != OwnerSource.OWNER_SEEDED) else None,
            uid if known else None,
            decode(comm.partition(b"\0")[0]) if known else None,
            names.hierarchy_name(hierarchy),
            path,
            str(cgroup_id),
            *facts,
            SOURCES.get(source, str(source)),
        )

    def is_final(values: tuple[Any, ...]) -> bool:  # missing values may become known
        path = values[CGROUP]
        if not path:
            return bool(values[-1] == UNKNOWN)
        known = runtimes.of(path)  # more may be known since the values were made
        return known.is_final and bool(values[FACTS] == known.facts)

    return FieldGroup(
        OWNER_FIELDS,
        OWNER_PART,
        values,
        repeats=True,
        is_final=is_final,
        version=lambda: names.version,
    )
