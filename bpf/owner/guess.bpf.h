/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Owner of a socket that has none in the ledger, from the kernel's own records: a cgroup, no process. */
#ifndef CGNET_OWNER_GUESS_BPF_H
#define CGNET_OWNER_GUESS_BPF_H

#include "base/flow.bpf.h"
#include "filter/filter.bpf.h"

CROSSES_TO_USER_SPACE(netns_owner);
CONFIG(owner_config);

/* Owners by the inode of the namespace. User space writes them: see src/cgnet/owners/netns_owners.py. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct netns_owner);
} netns_owners SEC(".maps");

static __always_inline u64 socket_cgroup_id(struct sock *sk)
{
	struct cgroup *cgrp = socket_cgroup(sk);

	return cgrp ? cgroup_id(TYPED, cgrp) : 0;
}

/* The kernel charges sockets to v1 cgroups only where these limit TCP's memory. */
static __always_inline u64 memcg_id(struct sock *sk)
{
	struct mem_cgroup *memcg;

	if (!bpf_core_field_exists(sk->sk_memcg))
		return 0;
	memcg = READ(sk, sk_memcg);
	return memcg ? cgroup_id(TYPED, READ(memcg, css.cgroup)) : 0;
}

static __always_inline u64 netns_cgroup_id(u32 inode, u64 cookie)
{
	struct netns_owner *found = bpf_map_lookup_elem(&netns_owners, &inode);

	if (!found || (found->cookie && found->cookie != cookie))
		return 0;
	return found->cgroup_id;
}

/* Owner by the namespace alone: a request, or a socket in TIME_WAIT, has no other record. */
static __always_inline void fall_back_to_netns(struct sock *sk, struct owner *owner)
{
	owner->cgroup_id = netns_cgroup_id(netns_of(TYPED, sk), socket_netns_cookie(TYPED, sk));
	owner->source = owner->cgroup_id ? OWNER_NETNS : OWNER_UNKNOWN;
}

static __always_inline bool guess_passes(struct owner *owner)
{
	return owner->cgroup_id ? partial_owner_passes(owner) : unknown_owner_passes();
}

/* Owner of a socket that no process was seen to use; unknown if the kernel does not report the cgroup. */
static __always_inline void fall_back(struct sock *sk, struct holder *holder)
{
	struct owner owner = {.hierarchy = owner_config.hierarchy[0].id};
	u32 controller = owner_config.hierarchy[0].controller;

	if (controller == CONTROLLER_V2) {
		owner.cgroup_id = socket_cgroup_id(sk);
		owner.source = OWNER_SK_CGRP;
	} else if (controller == CONTROLLER_MEMORY) {
		owner.cgroup_id = memcg_id(sk);
		owner.source = OWNER_MEMCG;
	}
	if (!owner.cgroup_id)
		fall_back_to_netns(sk, &owner);
	holder->wanted = guess_passes(&owner);
	holder->owner = owner;
}

#endif
