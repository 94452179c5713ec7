/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whose a child is. A connection is accepted in softirq, where its owner isn't: it has its listener's,
 * learnt when that began to listen.
 *
 * Socket storage is handed on by the kernel. Programs without it look the listener up by where it
 * listens; src/cgnet/seeds.py writes those that were open before into that map.
 */
#ifndef CGNET_LISTENERS_BPF_H
#define CGNET_LISTENERS_BPF_H

#include "ledger.bpf.h"

CROSSES_TO_USER_SPACE(holder);
CROSSES_TO_USER_SPACE(listener_key);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct listener_key);
	__type(value, struct holder);
} listeners SEC(".maps");

static __always_inline void key_of_listener(struct sock *sk, struct listener_key *key)
{
	u32 *words = (u32 *)key->address;
	struct inet_sock *inet = (struct inet_sock *)sk;

	key->netns = netns_of(false, sk);
	key->port = bpf_ntohs(BPF_CORE_READ(inet, inet_sport)); /* skc_num is 0 at TCP_CLOSE */
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6) {
		BPF_CORE_READ_INTO(&key->address, sk, __sk_common.skc_v6_rcv_saddr);
	} else {
		words[3] = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		if (words[3])
			words[2] = bpf_htonl(0xffff);
	}
}

static __always_inline bool same_owner(const struct owner *one, const struct owner *other)
{
	return one->cgroup_id == other->cgroup_id && one->pid == other->pid;
}

/* Several may listen there (SO_REUSEPORT): of different owners, none is known to be a child's. */
static __always_inline void remember_by_address(struct sock *sk, struct holder *mine)
{
	struct listener_key key = {};
	struct holder *known;

	key_of_listener(sk, &key);
	if (!key.port) /* it was not bound, and is given one later */
		return;
	mine->sockets = 1;
	known = bpf_map_lookup_elem(&listeners, &key);
	if (known) {
		mine->sockets = known->sockets + 1;
		if (!same_owner(&known->owner, &mine->owner)) {
			__builtin_memset(&mine->owner, 0, sizeof(mine->owner));
			mine->wanted = unknown_owner_passes();
		}
	}
	if (bpf_map_update_elem(&listeners, &key, mine, BPF_ANY))
		count_lost(LOST_LEDGER);
}

static __always_inline void forget_by_address(struct sock *sk)
{
	struct listener_key key = {};
	struct holder *known;

	key_of_listener(sk, &key);
	known = bpf_map_lookup_elem(&listeners, &key);
	if (!known)
		return;
	if (known->sockets > 1)
		known->sockets--;
	else
		bpf_map_delete_elem(&listeners, &key);
}

static __always_inline struct holder *listener_by_address(struct sock *child)
{
	struct listener_key key = {};
	struct holder *found;

	key_of_listener(child, &key);
	found = bpf_map_lookup_elem(&listeners, &key);
	if (found)
		return found;
	__builtin_memset(key.address, 0, sizeof(key.address));
	return bpf_map_lookup_elem(&listeners, &key);
}

/* Runs in the process that listens. */
static __always_inline void learn_listener(const bool typed, struct sock *sk)
{
	struct holder mine = {};
	struct ledger_entry *entry;

	if (!typed) {
		hold(typed, current_task(typed), &mine);
		remember_by_address(sk, &mine);
		return;
	}
	entry = ledger_store_alone(typed, sk);
	if (!entry)
		return;
	ledger_reset(entry);
	ledger_learn(typed, entry, current_task(typed), OWNER_LEARNED);
	entry->listens = 1;
}

static __always_inline void forget_listener(const bool typed, struct sock *sk)
{
	forget_by_address(sk);
}

#define SOCKET_IS_DEAD (1 << SOCK_DEAD)

/* A child that waits for accept(): it has no socket yet. What was closed has none any more. */
static __always_inline bool is_newborn(const bool typed, struct sock *sk)
{
	return !READ(sk, sk_socket) && !(READ(sk, __sk_common.skc_flags) & SOCKET_IS_DEAD);
}

/*
 * Who accepts a child, or NULL. With storage it is in the child's own entry, at the opener's rank; by address
 * are those found whose listener had none.
 */
static __always_inline struct holder *listener_of(const bool typed, struct sock *child)
{
	struct ledger_entry *entry = typed ? ledger_find(typed, child) : NULL;

	if (entry && entry->listens)
		return &entry->holders[RANK_OPENED];
	return typed && !is_newborn(typed, child) ? NULL : listener_by_address(child);
}

#endif
