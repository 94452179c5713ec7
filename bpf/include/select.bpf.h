/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Filters: which owners are selected. The partner of src/cgnet/filters.py.
 *
 * A selected cgroup selects its subtree. User space marks what exists; the program on cgroup_mkdir
 * hands the mark from parent to child at the birth, so that nothing can run in the child before.
 */
#ifndef CGNET_SELECT_BPF_H
#define CGNET_SELECT_BPF_H

#include "cgroup.bpf.h"
#include "transport.bpf.h"

CROSSES_TO_USER_SPACE(cgroup_event);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct cgroup_key);
	__type(value, u32);
} selected_cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u32);
} selected_pids SEC(".maps");

static __always_inline bool current_in_selected_cgroup(void)
{
	for (u32 i = 0; i < CGNET_HIERARCHIES; i++) {
		struct cgroup_key key = {};

		if (i >= cfg.hierarchies)
			break;
		key.id = current_cgroup_id(cfg.hierarchy[i].controller);
		key.hierarchy = cfg.hierarchy[i].id;
		if (bpf_map_lookup_elem(&selected_cgroups, &key))
			return true;
	}
	return false;
}

/* The current task as a possible owner: call it where learn() may be called. */
static __always_inline bool current_is_selected(const bool typed)
{
	if (!cfg.by_pid && !cfg.by_cgroup)
		return true;
	if (is_kernel_thread(typed, current_task(typed)))
		return false;
	if (cfg.by_pid) {
		u32 pid = bpf_get_current_pid_tgid() >> 32;

		if (!bpf_map_lookup_elem(&selected_pids, &pid))
			return false;
	}
	if (cfg.by_cgroup && !current_in_selected_cgroup())
		return false;
	return true;
}

static __always_inline bool hierarchy_is_used(u32 id)
{
	for (u32 i = 0; i < CGNET_HIERARCHIES; i++)
		if (i < cfg.hierarchies && cfg.hierarchy[i].id == id)
			return true;
	return false;
}

static __always_inline void tell_cgroup(u32 kind, const struct cgroup_key *key, bool selected,
					const char *path)
{
	struct cgroup_event *event =
		reserve(sizeof(*event), kind, bpf_ktime_get_ns(), LOST_CGROUP_NAMES);

	if (!event)
		return;
	event->cgroup_id = key->id;
	event->hierarchy = key->hierarchy;
	event->selected = selected;
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

SEC("raw_tp/cgroup_mkdir")
int BPF_PROG(cgroup_born, struct cgroup *cgrp, const char *path)
{
	struct cgroup_key key = {.hierarchy = BPF_CORE_READ(cgrp, root, hierarchy_id)};
	struct cgroup_key parent_key = {.hierarchy = key.hierarchy};
	struct cgroup *parent = cgroup_parent(cgrp);
	bool selected = false;
	u32 one = 1;

	if (!hierarchy_is_used(key.hierarchy))
		return 0;
	key.id = cgroup_id(false, cgrp);
	if (cfg.by_cgroup && parent) {
		parent_key.id = cgroup_id(false, parent);
		selected = bpf_map_lookup_elem(&selected_cgroups, &parent_key);
	}
	if (selected && bpf_map_update_elem(&selected_cgroups, &key, &one, BPF_ANY))
		count_lost(LOST_SELECTED_CGROUPS);
	tell_cgroup(RECORD_CGROUP_BORN, &key, selected, path);
	return 0;
}

/* Sockets outlive their cgroup: user space forgets the mark later. */
SEC("raw_tp/cgroup_rmdir")
int BPF_PROG(cgroup_gone, struct cgroup *cgrp, const char *path)
{
	struct cgroup_key key = {.hierarchy = BPF_CORE_READ(cgrp, root, hierarchy_id)};
	bool selected;

	if (!hierarchy_is_used(key.hierarchy))
		return 0;
	key.id = cgroup_id(false, cgrp);
	selected = cfg.by_cgroup && bpf_map_lookup_elem(&selected_cgroups, &key);
	tell_cgroup(RECORD_CGROUP_GONE, &key, selected, path);
	return 0;
}

#endif
