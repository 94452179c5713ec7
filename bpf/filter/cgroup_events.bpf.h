/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Cgroups that are created and removed while cgnet runs.
 *
 * User space marks the existing cgroups; the program on cgroup_mkdir copies the marks from parent to child at
 * creation, before anything can run in the child.
 */
#ifndef CGNET_FILTER_CGROUP_EVENTS_BPF_H
#define CGNET_FILTER_CGROUP_EVENTS_BPF_H

#include "base/transport.bpf.h"
#include "filter/filter.bpf.h"

CROSSES_TO_USER_SPACE(cgroup_event);
CONFIG(filter_config);
CONFIG(owner_config);

static __always_inline bool hierarchy_is_used(u32 id)
{
	for (u32 i = 0; i < CGNET_HIERARCHIES; i++)
		if (i < owner_config.hierarchies && owner_config.hierarchy[i].id == id)
			return true;
	return false;
}

static __always_inline void emit_cgroup_event(u32 kind, const struct cgroup_key *key, u32 marks,
					      const char *path)
{
	struct cgroup_event *event =
		reserve(sizeof(*event), kind, bpf_ktime_get_ns(), LOST_CGROUP_NAMES);

	if (!event)
		return;
	event->cgroup_id = key->id;
	event->hierarchy = key->hierarchy;
	event->marks = marks;
	if (bpf_probe_read_kernel_str(event->path, sizeof(event->path), path) < 0)
		event->path[0] = '\0';
	submit(event);
}

static __always_inline struct cgroup *cgroup_parent(struct cgroup *cgrp)
{
	struct cgroup_subsys_state *parent = BPF_CORE_READ(cgrp, self.parent);

	if (!parent)
		return NULL;
	return (void *)parent - bpf_core_field_offset(struct cgroup, self);
}

/* The child inherits the parent's marks; if there are patterns, its path is still to be matched. */
static __always_inline struct cgroup_mark marks_at_creation(struct cgroup *cgrp, u32 hierarchy)
{
	struct cgroup_key parent_key = {.hierarchy = hierarchy};
	struct cgroup *parent = cgroup_parent(cgrp);
	struct cgroup_mark mark = {}, *inherited;

	if (parent) {
		parent_key.id = cgroup_id(false, parent);
		inherited = bpf_map_lookup_elem(&selected_cgroups, &parent_key);
		if (inherited)
			mark = *inherited;
		mark.marks &= ~CGROUP_SETTLED;
	}
	if (filter_config.undecided && hierarchy == owner_config.hierarchy[0].id)
		mark.marks |= CGROUP_UNDECIDED;
	return mark;
}

static __always_inline int on_mkdir(struct cgroup *cgrp, const char *path)
{
	struct cgroup_key key = {.hierarchy = BPF_CORE_READ(cgrp, root, hierarchy_id)};
	struct cgroup_mark mark = {};

	if (!hierarchy_is_used(key.hierarchy))
		return 0;
	key.id = cgroup_id(false, cgrp);
#ifdef ON_NEW_CGROUP
	if (key.hierarchy == owner_config.hierarchy[0].id)
		ON_NEW_CGROUP(key.id);
#endif
	if (filter_config.by_cgroup)
		mark = marks_at_creation(cgrp, key.hierarchy);
	if (mark.marks && bpf_map_update_elem(&selected_cgroups, &key, &mark, BPF_ANY))
		count_lost(LOST_SELECTED_CGROUPS);
	emit_cgroup_event(RECORD_CGROUP_CREATED, &key, mark.marks, path);
	return 0;
}

SEC("raw_tp/cgroup_mkdir")
int BPF_PROG(cgroup_created, struct cgroup *cgrp, const char *path)
{
	return WITH_PERF_FLUSH(ctx, on_mkdir(cgrp, path));
}

/* Sockets outlive their cgroup: user space removes the mark later. */
static __always_inline int on_rmdir(struct cgroup *cgrp, const char *path)
{
	struct cgroup_key key = {.hierarchy = BPF_CORE_READ(cgrp, root, hierarchy_id)};
	struct cgroup_mark *mark = NULL;

	if (!hierarchy_is_used(key.hierarchy))
		return 0;
	key.id = cgroup_id(false, cgrp);
	if (filter_config.by_cgroup)
		mark = bpf_map_lookup_elem(&selected_cgroups, &key);
	emit_cgroup_event(RECORD_CGROUP_REMOVED, &key, mark ? mark->marks : 0, path);
	return 0;
}

SEC("raw_tp/cgroup_rmdir")
int BPF_PROG(cgroup_removed, struct cgroup *cgrp, const char *path)
{
	return WITH_PERF_FLUSH(ctx, on_rmdir(cgrp, path));
}

/* A v1 cgroup was renamed within its parent. A selected cgroup stays selected. */
static __always_inline int on_rename(struct cgroup *cgrp, const char *path)
{
	struct cgroup_key key = {.hierarchy = BPF_CORE_READ(cgrp, root, hierarchy_id)};

	if (!hierarchy_is_used(key.hierarchy))
		return 0;
	key.id = cgroup_id(false, cgrp);
	emit_cgroup_event(RECORD_CGROUP_RENAMED, &key, 0, path);
	return 0;
}

SEC("raw_tp/cgroup_rename")
int BPF_PROG(cgroup_renamed, struct cgroup *cgrp, const char *path)
{
	return WITH_PERF_FLUSH(ctx, on_rename(cgrp, path));
}

#endif
