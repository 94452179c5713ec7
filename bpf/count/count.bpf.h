/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Counts in the kernel: events send nothing to user space.
 *
 * There are two tables of counts. `counts` holds the one in use; user space replaces it by the other one and
 * reads the old one. The kernel lets the swap return only when no program uses the old one any more (Linux
 * kernel commit 1ae80cf31938 "bpf: wait for running BPF programs when updating map-in-map", in v5.0): no
 * increment is lost.
 */
#ifndef CGNET_COUNT_COUNT_BPF_H
#define CGNET_COUNT_COUNT_BPF_H

#include "base/flow.bpf.h"
#include "filter/filter.bpf.h"
#include "base/transport.bpf.h"
#include "abi/count.h"

CROSSES_TO_USER_SPACE(count_key);
CONFIG(count_config);

#define MAX_COUNTS 65536

/* Whether to count, and send no records. An object that never counts by key defines NO_COUNTS. */
static __always_inline bool counts_instead(void)
{
#ifdef NO_COUNTS
	return false;
#else
	return count_config.enabled;
#endif
}

struct count_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_COUNTS);
	__type(key, struct count_key);
	__type(value, u64);
} counts_even SEC(".maps"), counts_odd SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct count_table);
} counts SEC(".maps") = {.values = {&counts_even}};

static __always_inline u64 upper_bits(u32 count)
{
	if (count >= 64)
		return ~0ULL;
	return count ? ~0ULL << (64 - count) : 0;
}

/* Clear all but the first bits of a word-aligned address. No loop: verifiers explore each path through it. */
static __always_inline void keep_bits(u8 *address, u32 bits)
{
	u64 *words = (u64 *)address;

	words[0] &= bpf_cpu_to_be64(upper_bits(bits));
	words[1] &= bpf_cpu_to_be64(upper_bits(bits > 64 ? bits - 64 : 0));
}

static __always_inline void count_by_owner(struct count_key *key, const struct owner *owner)
{
	if (owner->source != OWNER_UNKNOWN)
		key->owner.source = is_partial(owner) ? OWNER_SK_CGRP : OWNER_LEARNED;
	key->owner.hierarchy = owner->hierarchy;
	key->owner.undecided = owner->undecided;
	if ((count_config.by & BY_CGROUP) || owner->undecided)
		key->owner.cgroup_id = owner->cgroup_id;
	if (count_config.by & BY_SELECTED)
		key->owner.given = owner->given;
	if (count_config.by & BY_PID)
		key->owner.pid = owner->pid;
	if (count_config.by & BY_UID)
		key->owner.uid = owner->uid;
	if (count_config.by & BY_COMM)
		__builtin_memcpy(key->owner.comm, owner->comm, sizeof(key->owner.comm));
}

static __always_inline void count_by_flow(struct count_key *key, const struct flow *flow)
{
	if (count_config.by & (BY_SADDR | BY_DADDR))
		key->flow.family = flow->family;
	if (count_config.by & BY_SADDR) {
		__builtin_memcpy(key->flow.saddr, flow->saddr, sizeof(key->flow.saddr));
		keep_bits(key->flow.saddr, count_config.saddr_bits);
	}
	if (count_config.by & BY_DADDR) {
		__builtin_memcpy(key->flow.daddr, flow->daddr, sizeof(key->flow.daddr));
		keep_bits(key->flow.daddr, count_config.daddr_bits);
	}
	if (count_config.by & BY_NETNS)
		key->flow.netns = flow->netns;
	if (count_config.by & BY_SPORT)
		key->flow.sport = flow->sport;
	if (count_config.by & BY_DPORT)
		key->flow.dport = flow->dport;
}

/* Value of a key in the table in use, created from `blank` if necessary; failures (NULL) are counted. */
static __always_inline void *counted(void *tables, const struct count_key *key, const void *blank)
{
	void *table = bpf_map_lookup_elem(tables, &(u32){0});
	void *value;

	if (!table)
		return NULL;
	value = bpf_map_lookup_elem(table, key);
	if (!value) {
		bpf_map_update_elem(table, key, blank, BPF_NOEXIST);
		value = bpf_map_lookup_elem(table, key);
	}
	if (!value)
		count_lost(LOST_COUNTS);
	return value;
}

static __always_inline void count_several(const struct count_key *key, u64 number)
{
	u64 zero = 0, *value = counted(&counts, key, &zero);

	if (value)
		__sync_fetch_and_add(value, number);
}

static __always_inline void count(const struct count_key *key)
{
	count_several(key, 1);
}

#endif
