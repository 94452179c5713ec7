/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Table of the attempts in progress, with open addressing by socket cookie. A hash map takes the overflow.
 *
 * A hash map's insert and delete take two locks each, and creating socket storage allocates: an attempt cost
 * some 550 and 800 ns more with them, measured on 6.18. One compare-and-swap claims a slot, and one store
 * releases it. A socket has a slot of its own, and may take one of the next WAYS - 1; if none is free, its
 * attempt goes to the hash. While no attempt is displaced, lookups end at the socket's own slot. The kernel
 * allocates cookies consecutively, so sockets of one time are neighbours here.
 *
 * BPF has compare-and-swap since Linux kernel commit 5ffa25502b5a "bpf: Add instructions for
 * atomic_[cmp]xchg" (in v5.12). Earlier kernels load the raw_tp programs, which use only the hash.
 */
#ifndef CGNET_CONNECT_ATTEMPT_TABLE_BPF_H
#define CGNET_CONNECT_ATTEMPT_TABLE_BPF_H

#include "base/task.bpf.h"
#include "connect/attempt.bpf.h"
#include "base/transport.bpf.h"

/* Attempt in progress on a socket. */
struct attempt {
	u64 slot_key; /* key that the slot is claimed for; 0: free, or an entry of the hash */
	struct owner owner;
	struct attempt_start start;
};

_Static_assert(sizeof(struct attempt) == 64, "a line of the cache");

#define SLOTS 4096 /* few enough to stay in a core's cache */
#define WAYS 4

struct attempt_table {
	struct attempt slots[SLOTS];
};

/* Array of one element, so that a slot is an offset, not a lookup. */
TYPED_ONLY struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct attempt_table);
} attempt_slots SEC(".maps");

/* Preallocated: kernels before 6.1 warn when a tracing program allocates hash entries. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, struct attempt);
} attempts SEC(".maps");

/* Number of typed programs' attempts that are not in their socket's own slot. */
TYPED_ONLY u64 attempts_displaced;

static __always_inline struct attempt *slot_find(u64 key)
{
	struct attempt_table *table = bpf_map_lookup_elem(&attempt_slots, &(u32){0});

	if (unlikely(!table))
		return NULL;
	for (u32 way = 0; way < WAYS; way++) {
		struct attempt *slot = &table->slots[(key + way) % SLOTS];

		if (likely(slot->slot_key == key))
			return slot;
		if (likely(!attempts_displaced))
			return NULL;
	}
	return NULL;
}

static __always_inline struct attempt *slot_claim(u64 key)
{
	struct attempt_table *table = bpf_map_lookup_elem(&attempt_slots, &(u32){0});

	if (unlikely(!table))
		return NULL;
	for (u32 way = 0; way < WAYS; way++) {
		struct attempt *slot = &table->slots[(key + way) % SLOTS];

		if (likely(!slot->slot_key) &&
		    likely(!__sync_val_compare_and_swap(&slot->slot_key, 0, key))) {
			if (unlikely(way))
				__sync_fetch_and_add(&attempts_displaced, 1);
			return slot;
		}
	}
	return NULL;
}

static __always_inline void slot_free(struct attempt *slot)
{
	struct attempt_table *table = bpf_map_lookup_elem(&attempt_slots, &(u32){0});
	u64 key = slot->slot_key;
	bool own = table && table->slots[key % SLOTS].slot_key == key;

	slot->slot_key = 0;
	if (unlikely(!own))
		__sync_fetch_and_add(&attempts_displaced, -1);
}

/*
 * Key of an attempt. Cookies are never reused, and a socket without a cookie needs no search. Kernels without
 * the helper for it (Linux kernel commit c5dbb89fc2ac "bpf: Expose bpf_get_socket_cookie to tracing
 * programs", in v5.12) load the raw_tp programs, which use the address: an attempt ends before its socket
 * does.
 */
static __always_inline u64 attempt_key(struct sock *sk)
{
	if (TYPED)
		return READ(sk, __sk_common.skc_cookie.counter);
	return (u64)sk;
}

/* Attempt of a socket, or NULL. */
static __always_inline struct attempt *attempt_find(struct sock *sk)
{
	u64 key = attempt_key(sk);

	if (TYPED) {
		struct attempt *attempt = key ? slot_find(key) : NULL;

		if (likely(attempt || !key || !attempts_displaced))
			return attempt;
	}
	return bpf_map_lookup_elem(&attempts, &key);
}

/* New attempt for a socket; the caller writes all but the key. Failures (NULL) are counted. */
static __always_inline struct attempt *attempt_open(struct sock *sk)
{
	static const struct attempt blank;
	u64 key = TYPED ? bpf_get_socket_cookie(sk) : (u64)sk;
	struct attempt *attempt;

	if (TYPED) {
		attempt = slot_claim(key);
		if (likely(attempt))
			return attempt;
	}
	if (bpf_map_update_elem(&attempts, &key, &blank, BPF_NOEXIST) == 0 && TYPED)
		__sync_fetch_and_add(&attempts_displaced, 1);
	attempt = bpf_map_lookup_elem(&attempts, &key);
	if (!attempt)
		count_lost(LOST_LEDGER);
	return attempt;
}

/* Release the attempt of this socket. Another socket may claim it from now on. */
static __always_inline void attempt_done(struct sock *sk, struct attempt *attempt)
{
	u64 key = attempt_key(sk);

	if (TYPED && likely(attempt->slot_key))
		slot_free(attempt);
	else if (bpf_map_delete_elem(&attempts, &key) == 0 && TYPED)
		__sync_fetch_and_add(&attempts_displaced, -1);
}

#endif
