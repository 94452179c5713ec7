/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Selected cgroups. Counterpart of src/cgnet/filters/cgroup.py. */
#ifndef CGNET_FILTER_CGROUP_FILTER_BPF_H
#define CGNET_FILTER_CGROUP_FILTER_BPF_H

#include "base/program.bpf.h"
#include "base/task.bpf.h"
#include "abi/filter.h"

CONFIG(filter_config);
CONFIG(owner_config);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct cgroup_key);
	__type(value, struct cgroup_mark);
} selected_cgroups SEC(".maps");

/* Whether an event that matches values of `matched` uses passes a filter of `use`. */
static __always_inline bool passes(u32 use, u32 matched)
{
	if (matched & FILTER_EXCLUDES)
		return false;
	return !(use & FILTER_INCLUDES) || (matched & FILTER_INCLUDES);
}

/*
 * Per-CPU cache of the last lookup in the hierarchy that names owners: most events follow one of the same
 * cgroup, and each lookup in a large hash costs cache and TLB misses. It holds settled marks only, in one
 * word, because a softirq may interrupt.
 */
#define KEPT_MARKS_BITS 8
#define KEPT_GIVEN_BITS 16
#define KEPT_ID_SHIFT (KEPT_MARKS_BITS + KEPT_GIVEN_BITS)
#define MAX_KEPT_ID ((1ULL << (64 - KEPT_ID_SHIFT)) - 1)

static __always_inline u32 marks_in(const struct cgroup_key *key, struct owner *owner)
{
	struct cgroup_mark *found = bpf_map_lookup_elem(&selected_cgroups, key);

	if (!found)
		return 0;
	if (!owner->given)
		owner->given = found->given;
	return found->marks;
}

static __always_inline u32 marks_of_owner(struct owner *owner)
{
	struct cgroup_key key = {.id = owner->cgroup_id, .hierarchy = owner_config.hierarchy[0].id};
	struct done *ours = bpf_map_lookup_elem(&done, &(u32){0});
	u64 kept = ours ? *(volatile u64 *)&ours->cgroup : 0;
	u32 marks;

	if (kept && kept >> KEPT_ID_SHIFT == key.id) {
		owner->given = kept >> KEPT_MARKS_BITS;
		return (u8)kept;
	}
	marks = marks_in(&key, owner);
	if (ours && (marks & CGROUP_SETTLED) && key.id <= MAX_KEPT_ID)
		*(volatile u64 *)&ours->cgroup =
			key.id << KEPT_ID_SHIFT | (u64)owner->given << KEPT_MARKS_BITS | marks;
	return marks;
}

static __always_inline bool cgroup_passes(struct task_struct *task, struct owner *owner)
{
	u32 marks = marks_of_owner(owner);

	for (u32 i = 1; i < CGNET_HIERARCHIES; i++) {
		struct cgroup_key key = {};

		if (i >= owner_config.hierarchies || !task)
			break;
		key.id = cgroup_id_in(task, owner_config.hierarchy[i].controller);
		key.hierarchy = owner_config.hierarchy[i].id;
		marks |= marks_in(&key, owner);
	}
	if (!(marks & CGROUP_UNDECIDED) || (marks & CGROUP_EXCLUDED))
		return passes(filter_config.by_cgroup, marks);
	owner->undecided =
		passes(filter_config.by_cgroup, marks) ? UNDECIDED_SELECTED : UNDECIDED_NEW;
	return true;
}

#endif
