/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Filters: selection of owners and flows. Counterpart of src/cgnet/filters/selection.py.
 *
 * An unused filter is a constant zero, and its code is never loaded; on kernels before 5.5 it is a branch not
 * taken. Values of one filter are ORed, filters are ANDed, and exclusions take precedence.
 */
#ifndef CGNET_FILTER_FILTER_BPF_H
#define CGNET_FILTER_FILTER_BPF_H

#include "base/flow.bpf.h"
#include "filter/cgroup_filter.bpf.h"

CONFIG(filter_config);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, struct pid_value);
} selected_pids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, char[CGNET_COMM_LEN]);
	__type(value, u32);
} selected_comms SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u32);
} selected_uids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, struct netns_value);
} selected_netns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct address_key);
	__type(value, u32);
} selected_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct port_flags);
} selected_ports SEC(".maps");

/* Cgroups of the hierarchy that names owners, and whether their containers' names are selected. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, u64);
	__type(value, u32);
} named_cgroups SEC(".maps");

/* -- owners: a task as a possible owner, where learn() may record it */

static __always_inline bool pid_passes(struct task_struct *task, u32 pid)
{
	struct pid_value *found = bpf_map_lookup_elem(&selected_pids, &pid);

	if (found && found->start != start_of_process(TYPED, task))
		found = NULL;
	return passes(filter_config.by_pid, found ? found->use : 0);
}

static __always_inline bool hash_passes(void *map, const void *key, u32 use)
{
	u32 *found = bpf_map_lookup_elem(map, key);

	return passes(use, found ? *found : 0);
}

/* User space decides about a cgroup that is not in the map yet. */
static __always_inline bool name_passes(struct owner *owner)
{
	u64 id = owner->cgroup_id; /* Linux 6.1 takes no key in a global function's argument */
	u32 *found = bpf_map_lookup_elem(&named_cgroups, &id);

	if (found)
		return *found & FILTER_INCLUDES;
	owner->undecided |= UNDECIDED_NAME;
	return true;
}

/* An unknown owner matches no filter that includes. */
static __always_inline bool unknown_owner_passes(void)
{
	u32 uses = filter_config.by_cgroup | filter_config.by_pid | filter_config.by_comm |
		   filter_config.by_uid | filter_config.by_name;

	return !(uses & FILTER_INCLUDES);
}

/* Whether only the owner's cgroup is known, in the hierarchy that names owners. */
static __always_inline bool is_partial(const struct owner *owner)
{
	return owner->source >= OWNER_SK_CGRP;
}

static __always_inline bool partial_owner_passes(struct owner *owner)
{
	if ((filter_config.by_pid | filter_config.by_comm | filter_config.by_uid) & FILTER_INCLUDES)
		return false;
	if (filter_config.by_cgroup && !cgroup_passes(NULL, owner))
		return false;
	return !filter_config.by_name || name_passes(owner);
}

/* Whether a task, just recorded as an owner, is selected; sets the owner's `given` and `undecided`. */
static __always_inline bool owner_passes(struct task_struct *task, struct owner *owner)
{
	if (unlikely(owner->source == OWNER_UNKNOWN))
		return unknown_owner_passes();
	if (filter_config.by_pid && !pid_passes(task, owner->pid))
		return false;
	if (filter_config.by_comm &&
	    !hash_passes(&selected_comms, owner->comm, filter_config.by_comm))
		return false;
	if (filter_config.by_uid && !hash_passes(&selected_uids, &owner->uid, filter_config.by_uid))
		return false;
	if (filter_config.by_cgroup && !cgroup_passes(task, owner))
		return false;
	return !filter_config.by_name || name_passes(owner);
}

/* -- flows */

static __always_inline bool address_is_in(u32 list, u8 family, const u8 *address)
{
	struct address_key key = {.prefixlen = 8 + 8 + 128, .list = list, .family = family};

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return bpf_map_lookup_elem(&selected_addresses, &key);
}

static __always_inline bool addresses_match(u32 side, u32 list, const struct flow *flow)
{
	if (side != SIDE_DESTINATION && address_is_in(list, flow->family, flow->saddr))
		return true;
	return side != SIDE_SOURCE && address_is_in(list, flow->family, flow->daddr);
}

static __always_inline bool address_passes(u32 side, u32 use, const struct flow *flow)
{
	if ((use & FILTER_EXCLUDES) && addresses_match(side, 2 * side + 1, flow))
		return false;
	return !(use & FILTER_INCLUDES) || addresses_match(side, 2 * side, flow);
}

/*
 * Older verifiers lose the bounds of a number in a byte swap: to them a port may have any value. The barrier
 * keeps the compiler, which knows the bounds, from dropping the mask.
 */
static __always_inline u32 port_index(u16 port)
{
	u32 index = port;

	barrier_var(index);
	return index & (CGNET_PORTS - 1);
}

static __always_inline bool port_passes(u32 side, u32 use, const struct flow *flow)
{
	struct port_flags *ports = bpf_map_lookup_elem(&selected_ports, &(u32){0});
	u32 flags = 0;

	if (!ports)
		return false;
	if (side != SIDE_DESTINATION)
		flags |= ports->flags[port_index(flow->sport)];
	if (side != SIDE_SOURCE)
		flags |= ports->flags[port_index(flow->dport)];
	return passes(use, flags >> (2 * side) & (FILTER_INCLUDES | FILTER_EXCLUDES));
}

static __always_inline bool netns_passes(u32 inode, u64 cookie)
{
	struct netns_value *found = bpf_map_lookup_elem(&selected_netns, &inode);

	if (found && found->cookie && found->cookie != cookie)
		found = NULL;
	return passes(filter_config.by_netns, found ? found->use : 0);
}

#define SIDE_PASSES(what, side, flow) \
	(!filter_config.by_##what[side] || what##_passes(side, filter_config.by_##what[side], flow))

static __always_inline bool ends_pass(const struct flow *flow)
{
	if (filter_config.family && filter_config.family != flow->family)
		return false;
	return SIDE_PASSES(port, SIDE_SOURCE, flow) && SIDE_PASSES(port, SIDE_DESTINATION, flow) &&
	       SIDE_PASSES(port, SIDE_EITHER, flow) && SIDE_PASSES(address, SIDE_SOURCE, flow) &&
	       SIDE_PASSES(address, SIDE_DESTINATION, flow) &&
	       SIDE_PASSES(address, SIDE_EITHER, flow);
}

/* Whether a filter looks at a connection's addresses, ports or namespace. */
static __always_inline bool filters_flows(void)
{
	return filter_config.family | filter_config.by_netns | filter_config.by_port[SIDE_SOURCE] |
	       filter_config.by_port[SIDE_DESTINATION] | filter_config.by_port[SIDE_EITHER] |
	       filter_config.by_address[SIDE_SOURCE] | filter_config.by_address[SIDE_DESTINATION] |
	       filter_config.by_address[SIDE_EITHER];
}

static __always_inline bool flow_passes(const bool typed, struct sock *sk, const struct flow *flow)
{
	if (filter_config.by_netns && !netns_passes(flow->netns, socket_netns_cookie(typed, sk)))
		return false;
	return ends_pass(flow);
}

/* -- roles: unknown for some connections that were open before the start */

static __always_inline bool role_passes(u32 role)
{
	return filter_config.roles == (ROLE_CLIENT | ROLE_SERVER) || (filter_config.roles & role);
}

/* -- outcomes */

static __always_inline bool result_passes(s32 result)
{
	u32 bit = result + 1;

	return !filter_config.by_result ||
	       (bit < 64 * CGNET_RESULT_WORDS &&
		(filter_config.results[bit / 64 % CGNET_RESULT_WORDS] >> (bit % 64) & 1));
}

#endif
