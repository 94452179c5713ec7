/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Ledger of socket owners. Programs write it where the owner is the current task, and keep it by socket,
 * because most events of a socket run on top of an unrelated task.
 */
#ifndef CGNET_OWNER_LEDGER_BPF_H
#define CGNET_OWNER_LEDGER_BPF_H

#include "owner/slots.bpf.h"
#include "base/transport.bpf.h"

/*
 * The kernel copies an entry from listener to child (BPF_F_CLONE), and frees it with the socket. Tracing
 * programs can use storage since Linux kernel commit 8e4597c627fb "bpf: Allow using bpf_sk_storage in
 * FENTRY/FEXIT/RAW_TP" (in v5.11).
 */
TYPED_ONLY struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct ledger_entry);
} ledger SEC(".maps");

/*
 * Fallback without storage: by address, until tcp_destroy_sock. Preallocated: kernels before 6.1 warn when a
 * tracing program allocates hash entries.
 */
RAW_ONLY struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, u64);
	__type(value, struct ledger_entry);
} ledger_hash SEC(".maps");

/* The entry of a full socket, or NULL. */
static __always_inline struct ledger_entry *ledger_find(const bool typed, struct sock *sk)
{
	struct ledger_slot *slot;
	u64 key = (u64)sk;

	if (!typed)
		return bpf_map_lookup_elem(&ledger_hash, &key);
	slot = ledger_slot_find(sk);
	if (slot)
		return &slot->entry;
	return bpf_sk_storage_get(&ledger, sk, NULL, 0);
}

/*
 * Direct-mapped table of sockets that found no room in the hash, by address: each of their events tries
 * again, and one socket is one loss. A later socket may replace an earlier one, which is then counted again.
 */
#define LOST_SOCKETS 4096

struct lost_sockets {
	u64 addresses[LOST_SOCKETS];
};

RAW_ONLY struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct lost_sockets);
} lost_sockets SEC(".maps");

static __always_inline u64 *lost_socket(u64 address)
{
	struct lost_sockets *all = bpf_map_lookup_elem(&lost_sockets, &(u32){0});
	u64 place = (address >> 6) * 0x9e3779b97f4a7c15 >> 52;

	/* A kernel 5.4 forgets the bounds of a number spilled to the stack: set them where it is used. */
	barrier_var(place);
	place &= LOST_SOCKETS - 1;
	return all ? &all->addresses[place] : NULL;
}

static __always_inline void count_lost_socket(struct sock *sk)
{
	u64 *place = TYPED ? NULL : lost_socket((u64)sk);

	if (place) {
		if (*place == (u64)sk)
			return;
		*place = (u64)sk;
	}
	count_lost(LOST_LEDGER);
}

/* Another socket has the address from now on. */
static __always_inline void forget_lost_socket(struct sock *sk)
{
	u64 *place = lost_socket((u64)sk);

	if (place && *place == (u64)sk)
		*place = 0;
}

/* Entry of a socket outside the slots, created blank if missing; NULL, for lack of room, is counted. */
static __always_inline struct ledger_entry *ledger_store(struct sock *sk)
{
	static const struct ledger_entry blank;
	struct ledger_entry *entry;
	u64 key = (u64)sk;

	if (TYPED) {
		entry = bpf_sk_storage_get(&ledger, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	} else {
		entry = bpf_map_lookup_elem(&ledger_hash, &key);
		if (!entry) {
			bpf_map_update_elem(&ledger_hash, &key, &blank, BPF_NOEXIST);
			entry = bpf_map_lookup_elem(&ledger_hash, &key);
		}
	}
	if (!entry)
		count_lost_socket(sk);
	return entry;
}

/* Add a socket that has no entry: in a slot if one is free. */
static __always_inline struct ledger_entry *ledger_add(struct sock *sk)
{
	struct ledger_slot *slot = TYPED ? ledger_slot_claim(sk, false) : NULL;

	return slot ? &slot->entry : ledger_store(sk);
}

/* Entry in storage, which the socket may have inherited; does not create one. */
static __always_inline struct ledger_entry *ledger_stored(struct sock *sk)
{
	return TYPED ? bpf_sk_storage_get(&ledger, sk, NULL, 0) : NULL;
}

/* Blank entry of which children inherit a copy. */
static __always_inline struct ledger_entry *ledger_store_anew(struct sock *sk)
{
	struct ledger_entry *entry;

	if (TYPED)
		ledger_slot_free(sk);
	else
		forget_lost_socket(sk);
	entry = ledger_store(sk);
	if (entry)
		ledger_reset(entry);
	return entry;
}

/* Blank entry for a socket that starts anew, in a slot if one is free. */
static __always_inline struct ledger_entry *ledger_open_anew(struct sock *sk)
{
	struct ledger_slot *slot = TYPED && !ledger_stored(sk) ? ledger_slot_claim(sk, true) : NULL;

	return slot ? &slot->entry : ledger_store_anew(sk);
}

/*
 * A process that uses a socket owns its lock, and softirqs do not touch an owned socket: an event under that
 * lock runs in the socket's user. The lock says nothing about events outside it, such as those of a packet. A
 * process that aborts sockets of others (`ss -K`) has the lock, too.
 */
static __always_inline bool runs_for_user(struct sock *sk)
{
	return READ(sk, sk_lock.owned) && !is_kernel_thread(current_task());
}

static __always_inline void hold(struct task_struct *task, struct holder *holder)
{
	struct owner owner;

	learn(task, &owner);
	holder->wanted = owner_passes(task, &owner);
	holder->owner = owner;
}

/* Record a task that opened the socket, or has it open. */
static __always_inline bool ledger_learn(struct ledger_entry *entry, struct task_struct *task,
					 u8 source)
{
	struct holder *opener = &entry->holders[RANK_OPENED];

	if (!rank_claim(entry, RANK_OPENED))
		return false;
	entry->opener = (u64)READ(task, signal);
	hold(task, opener);
	if (opener->owner.source)
		opener->owner.source = source;
	rank_is_whole(entry, RANK_OPENED);
	return true;
}

VERIFIED_ONCE int learn_current_typed(struct ledger_entry *entry)
{
	return entry && ledger_learn(entry, current_task(), OWNER_LEARNED);
}

/* Record the current task as the opener. */
static __always_inline void ledger_learn_current(struct ledger_entry *entry)
{
	if (TYPED)
		learn_current_typed(entry);
	else
		ledger_learn(entry, current_task(), OWNER_LEARNED);
}

#endif
