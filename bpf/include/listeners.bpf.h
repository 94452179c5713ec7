/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whose a child is. A connection is accepted in softirq, where its owner isn't: it has its listener's,
 * learnt when that began to listen, and looked up by where it listens; src/cgnet/seeds.py writes those that
 * were open before, for programs without socket storage.
 *
 * Several sockets may listen at one place (SO_REUSEPORT, SO_BINDTODEVICE). These are in socket storage, which the
 * kernel hands on to their children. It isn't for all: the copy is allocated and freed for each connection.
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

static __always_inline void key_of_listener(const bool typed, struct sock *sk,
					    struct listener_key *key)
{
	u32 *words = (u32 *)key->address;
	struct inet_sock *inet = (struct inet_sock *)sk;

	key->netns = netns_of(typed, sk);
	key->port = READ(sk, __sk_common.skc_num);
	if (!key->port) /* at TCP_CLOSE */
		key->port = bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
	if (READ(sk, __sk_common.skc_family) == AF_INET6) {
		struct in6_addr address = READ(sk, __sk_common.skc_v6_rcv_saddr);

		store_v6(key->address, &address);
	} else {
		words[3] = READ(sk, __sk_common.skc_rcv_saddr);
		if (words[3])
			words[2] = bpf_htonl(0xffff);
	}
}

static __always_inline bool same_owner(const struct owner *one, const struct owner *other)
{
	return one->cgroup_id == other->cgroup_id && one->pid == other->pid;
}

/* A typed program tells whether no other socket listens where this one does, or is going to. */
static __always_inline bool listens_alone(struct sock *sk)
{
	struct listener_key key = {};

	if (BPF_CORE_READ_BITFIELD(sk, __sk_common.skc_reuseport) ||
	    sk->__sk_common.skc_bound_dev_if)
		return false;
	key_of_listener(true, sk, &key);
	return key.port && !bpf_map_lookup_elem(&listeners, &key);
}

/*
 * Of different owners, none is known to be a child's. Who came first and is in no storage keeps its children: all
 * that come later are, and theirs are born with their owner.
 */
static __always_inline void remember_by_address(const bool typed, struct sock *sk,
						struct holder *mine, bool alone)
{
	struct listener_key key = {};
	struct holder *known;

	key_of_listener(typed, sk, &key);
	if (!key.port) /* it was not bound, and is given one later */
		return;
	mine->sockets = 1;
	mine->alone = alone;
	known = bpf_map_lookup_elem(&listeners, &key);
	if (known && known->alone) {
		__sync_fetch_and_add(&known->sockets, 1);
		return;
	}
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

static __always_inline struct holder *listener_by_address(const bool typed, struct sock *child)
{
	struct listener_key key = {};
	struct holder *found;

	key_of_listener(typed, child, &key);
	found = bpf_map_lookup_elem(&listeners, &key);
	if (found)
		return found;
	__builtin_memset(key.address, 0, sizeof(key.address));
	return bpf_map_lookup_elem(&listeners, &key);
}

/* Runs in the process that listens. */
static __always_inline void learn_listener(const bool typed, struct sock *sk)
{
	bool alone = typed && listens_alone(sk);
	struct ledger_entry *entry;
	struct holder mine = {};

	if (typed) {
		entry = alone ? ledger_open_anew(typed, sk) : ledger_store_anew(typed, sk);
		if (!entry)
			return;
		ledger_learn(typed, entry, current_task(typed), OWNER_LEARNED);
		entry->listens = 1;
		mine = entry->holders[RANK_OPENED];
	} else {
		hold(typed, current_task(typed), &mine);
	}
	remember_by_address(typed, sk, &mine, alone);
}

static __always_inline void forget_listener(const bool typed, struct sock *sk)
{
	struct listener_key key = {};
	struct holder *known;

	key_of_listener(typed, sk, &key);
	known = bpf_map_lookup_elem(&listeners, &key);
	if (known && known->sockets > 1)
		__sync_fetch_and_add(&known->sockets, -1);
	else if (known)
		bpf_map_delete_elem(&listeners, &key);
}

#define SOCKET_IS_DEAD (1 << SOCK_DEAD)

/* A child that waits for accept(): it has no socket yet. What was closed has none any more. */
static __always_inline bool is_newborn(const bool typed, struct sock *sk)
{
	return !READ(sk, sk_socket) && !(READ(sk, __sk_common.skc_flags) & SOCKET_IS_DEAD);
}

/* Who accepts a child, or NULL. */
static __always_inline struct holder *listener_of(const bool typed, struct sock *child)
{
	struct ledger_entry *entry = typed ? ledger_find(typed, child) : NULL;

	if (entry && entry->listens)
		return &entry->holders[RANK_OPENED];
	return typed && !is_newborn(typed, child) ? NULL : listener_by_address(typed, child);
}

#endif
