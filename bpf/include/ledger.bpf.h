/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ledger: who owns a socket. It is written where the owner is the current task, and kept by socket,
 * because most events of a socket run on top of a bystander.
 *
 * The includer says what else it keeps per socket: `struct ledger_private`. Both live in one entry,
 * so that an event costs one look-up.
 */
#ifndef CGNET_LEDGER_BPF_H
#define CGNET_LEDGER_BPF_H

#include "select.bpf.h"
#include "transport.bpf.h"

/*
 * How well an owner is known; the best counts. Softirqs read an entry while a process writes to it, so
 * each rank has a place of its own, which is written once and then said to be whole.
 */
enum rank {
	RANK_GUESSED = 0, /* what the kernel keeps of a socket without our help */
	RANK_OPENED = 1,  /* who opened it, whose listener did, or had it open at the start */
	RANK_READ = 2,	  /* who read from it first: it may be another one than who opened it */
	RANKS = 3,
};

struct ledger_entry {
	struct holder holders[RANKS];
	u32 whole;   /* ranks that may be read, as bits */
	u32 claimed; /* ranks that somebody writes, or wrote */
	u32 listens; /* 1: it is a listener's, or a copy that a child of it was born with */
	u32 role;    /* enum role; 0: unknown, open before the start */
	struct ledger_private private;
};

/*
 * The kernel copies an entry from listener to child (BPF_F_CLONE), and frees it with the socket. Storage is
 * for tracing programs since Linux kernel commit 8e4597c627fb "bpf: Allow using bpf_sk_storage in
 * FENTRY/FEXIT/RAW_TP" (in v5.11).
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct ledger_entry);
} ledger SEC(".maps");

/*
 * Without it: by address, until tcp_destroy_sock. Preallocated: kernels before 6.1 warn when a tracing
 * program allocates hash entries.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, u64);
	__type(value, struct ledger_entry);
} ledger_hash SEC(".maps");

/* The entry of a full socket, or NULL. */
static __always_inline struct ledger_entry *ledger_find(const bool typed, struct sock *sk)
{
	u64 key = (u64)sk;

	if (typed)
		return bpf_sk_storage_get(&ledger, sk, NULL, 0);
	return bpf_map_lookup_elem(&ledger_hash, &key);
}

/* The entry of a socket, a blank one if it had none; NULL, where there is no room, is counted. */
static __always_inline struct ledger_entry *ledger_open(const bool typed, struct sock *sk)
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
		count_lost(LOST_LEDGER);
	return entry;
}

/* A socket that opens anew has no past. */
static __always_inline void ledger_reset(struct ledger_entry *entry)
{
	static const struct ledger_private blank;

	entry->whole = entry->claimed = entry->listens = entry->role = 0;
	entry->private = blank;
}

/* Whoever comes first may write a rank. Untyped programs write under the socket's lock, one at a time. */
static __always_inline bool rank_claim(const bool typed, struct ledger_entry *entry, enum rank rank)
{
	if (typed)
		return !(__sync_fetch_and_or(&entry->claimed, 1 << rank) & (1 << rank));
	return !(entry->whole & (1 << rank));
}

static __always_inline void rank_is_whole(const bool typed, struct ledger_entry *entry,
					  enum rank rank)
{
	if (typed) {
		__sync_fetch_and_or(&entry->whole, 1 << rank);
	} else {
		barrier();
		*(volatile u32 *)&entry->whole = entry->whole | 1 << rank;
	}
}

/* The owner as far as it is known. */
static __always_inline const struct holder *holder_of(const struct ledger_entry *entry)
{
	u32 whole = *(volatile u32 *)&entry->whole;

	if (whole & (1 << RANK_READ))
		return &entry->holders[RANK_READ];
	if (whole & (1 << RANK_OPENED))
		return &entry->holders[RANK_OPENED];
	return &entry->holders[RANK_GUESSED];
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

/* The current task opened the socket, or found it without an owner. */
static __always_inline void ledger_learn(const bool typed, struct ledger_entry *entry)
{
	if (!rank_claim(typed, entry, RANK_OPENED))
		return;
	hold(typed, current_task(typed), &entry->holders[RANK_OPENED]);
	rank_is_whole(typed, entry, RANK_OPENED);
}

#endif
