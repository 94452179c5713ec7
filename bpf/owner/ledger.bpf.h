/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ledger: who owns a socket. It is written where the owner is the current task, and kept by socket,
 * because most events of a socket run on top of a bystander.
 */
#ifndef CGNET_OWNER_LEDGER_BPF_H
#define CGNET_OWNER_LEDGER_BPF_H

#include "owner/slots.bpf.h"
#include "base/transport.bpf.h"

/*
 * The kernel copies an entry from listener to child (BPF_F_CLONE), and frees it with the socket. Storage is
 * for tracing programs since Linux kernel commit 8e4597c627fb "bpf: Allow using bpf_sk_storage in
 * FENTRY/FEXIT/RAW_TP" (in v5.11).
 */
TYPED_ONLY struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct ledger_entry);
} ledger SEC(".maps");

/*
 * Without it: by address, until tcp_destroy_sock. Preallocated: kernels before 6.1 warn when a tracing
 * program allocates hash entries.
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
 * Sockets that found no room in the hash, by their addresses: each of their events looks for it again, and one
 * socket is one loss. A later one may take a place here, and then an earlier one is counted again.
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

	/* A kernel 5.4 forgets the bounds of a number that is on the stack meanwhile: they are told where it is used. */
	barrier_var(place);
	place &= LOST_SOCKETS - 1;
	return all ? &all->addresses[place] : NULL;
}

static __always_inline void count_lost_socket(const bool typed, struct sock *sk)
{
	u64 *place = typed ? NULL : lost_socket((u64)sk);

	if (place) {
		if (*place == (u64)sk)
			return;
		*place = (u64)sk;
	}
	count_lost(LOST_LEDGER);
}

/* The address is another socket's from now on. */
static __always_inline void forget_lost_socket(struct sock *sk)
{
	u64 *place = lost_socket((u64)sk);

	if (place && *place == (u64)sk)
		*place = 0;
}

/*
 * The entry of a socket, a blank one if it had none, not in a slot; NULL, where there is no room, is
 * counted.
 */
static __always_inline struct ledger_entry *ledger_store(const bool typed, struct sock *sk)
{
	static const struct ledger_entry blank;
	struct ledger_entry *entry;
	u64 key = (u64)sk;

	if (typed) {
		entry = bpf_sk_storage_get(&ledger, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	} else {
		entry = bpf_map_lookup_elem(&ledger_hash, &key);
		if (!entry) {
			bpf_map_update_elem(&ledger_hash, &key, &blank, BPF_NOEXIST);
			entry = bpf_map_lookup_elem(&ledger_hash, &key);
		}
	}
	if (!entry)
		count_lost_socket(typed, sk);
	return entry;
}

/* The same, in a slot if one is free. */
static __always_inline struct ledger_entry *ledger_open(const bool typed, struct sock *sk)
{
	struct ledger_entry *entry = typed ? ledger_find(typed, sk) : NULL;
	struct ledger_slot *slot;

	if (entry)
		return entry;
	slot = typed ? ledger_slot_claim(sk) : NULL;
	return slot ? &slot->entry : ledger_store(typed, sk);
}

/* What is in storage, which it may be born with; nothing is made. */
static __always_inline struct ledger_entry *ledger_stored(const bool typed, struct sock *sk)
{
	return typed ? bpf_sk_storage_get(&ledger, sk, NULL, 0) : NULL;
}

/* A blank entry that children are born with a copy of. */
static __always_inline struct ledger_entry *ledger_store_anew(const bool typed, struct sock *sk)
{
	struct ledger_entry *entry;

	if (typed)
		ledger_slot_free(sk);
	else
		forget_lost_socket(sk);
	entry = ledger_store(typed, sk);
	if (entry)
		ledger_reset(entry);
	return entry;
}

/* A blank entry for a socket that begins anew, in a slot if one is free. */
static __always_inline struct ledger_entry *ledger_open_anew(const bool typed, struct sock *sk)
{
	struct ledger_slot *slot =
		typed && !ledger_stored(typed, sk) ? ledger_slot_renew(sk) : NULL;

	return slot ? &slot->entry : ledger_store_anew(typed, sk);
}

/*
 * A process that uses a socket holds its lock as its owner, and softirqs leave a socket that is owned alone: an
 * event under that lock runs in the socket's user. The lock says nothing of events outside it, such
 * as those of a packet. Who aborts sockets of others (`ss -K`) has the lock, too.
 */
static __always_inline bool runs_for_user(const bool typed, struct sock *sk)
{
	return READ(sk, sk_lock.owned) && !is_kernel_thread(typed, current_task(typed));
}

static __always_inline void hold(const bool typed, struct task_struct *task, struct holder *holder)
{
	struct owner owner;

	learn(typed, task, &owner);
	holder->wanted = owner_passes(typed, task, &owner);
	holder->owner = owner;
}

/* A task opened the socket, or has it open. */
static __always_inline bool ledger_learn(const bool typed, struct ledger_entry *entry,
					 struct task_struct *task, u8 source)
{
	struct holder *opener = &entry->holders[RANK_OPENED];

	if (!rank_claim(typed, entry, RANK_OPENED))
		return false;
	entry->opener = (u64)READ(task, signal);
	hold(typed, task, opener);
	if (opener->owner.source)
		opener->owner.source = source;
	rank_is_whole(typed, entry, RANK_OPENED);
	return true;
}

#endif
