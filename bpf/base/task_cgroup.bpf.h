/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The cgroup of a task, in any hierarchy of v1 and v2. */
#ifndef CGNET_BASE_TASK_CGROUP_BPF_H
#define CGNET_BASE_TASK_CGROUP_BPF_H

#include "base/compat.bpf.h"

static __always_inline u64 cgroup_id(const bool typed, struct cgroup *cgrp)
{
	struct kernfs_node *kn = READ_AS(typed, cgrp, kn);

	return kernfs_id(typed, kn);
}

/* Return 0 if the controller has no slot in this kernel. */
static __always_inline u64 task_cgroup_id(const bool typed, struct task_struct *task,
					  u32 controller)
{
	struct css_set *set = READ_AS(typed, task, cgroups);
	struct cgroup_subsys_state *css;
	int slot;

	if (controller == CONTROLLER_V2)
		return cgroup_id(typed, READ_AS(typed, set, dfl_cgrp));
	slot = subsys_slot(controller);
	if (slot < 0)
		return 0;
	css = READ_AS(typed, set, subsys[slot]);
	return cgroup_id(typed, READ_AS(typed, css, cgroup));
}

/*
 * The same out of line, for loops over hierarchies: inlined there, clang would hoist the slots of all
 * controllers out of the loop, and the verifier rejects the instruction for a slot that this kernel lacks.
 */
static __noinline u64 cgroup_id_in(struct task_struct *task, u32 controller)
{
	return task_cgroup_id(false, task, controller);
}

#endif
