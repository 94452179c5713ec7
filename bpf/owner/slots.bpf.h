/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Set-associative table of ledger entries, by socket address. The ledger uses it while there is room.
 *
 * Socket storage is allocated, charged and linked for each socket: 970 ns of the 1,200 that the start of a
 * connection cost, measured on 6.18, and its end not counted. A slot is claimed by compare-and-swap and
 * released by a store. The kernel reuses socket addresses soon, so the slots in use are few, and in the
 * cache.
 *
 * BPF has compare-and-swap since Linux kernel commit 5ffa25502b5a "bpf: Add instructions for
 * atomic_[cmp]xchg" (in v5.12), which typed programs need for other reasons, too.
 */
#ifndef CGNET_OWNER_SLOTS_BPF_H
#define CGNET_OWNER_SLOTS_BPF_H

#include "owner/entry.bpf.h"

#define LEDGER_SLOTS 8192
#define LEDGER_WAYS 2
#define SLOT_IS_TAKEN 1 /* claimed, but the address is not written yet */

struct ledger_slot {
	u64 address; /* of the socket; 0: free */
	u64 gone;    /* 1: the socket has ended, and the slot may be reused */
	struct ledger_entry entry;
};

TYPED_ONLY struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LEDGER_SLOTS);
	__type(key, u32);
	__type(value, struct ledger_slot);
} ledger_slots SEC(".maps");

TYPED_ONLY struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} scratch SEC(".maps");

#define TRIES 4 /* attempts, as a softirq may interrupt */

/*
 * Address of a kernel's object as a number. The verifier allows no arithmetic on a typed pointer, but a value read
 * from memory is a number. 0: failed.
 */
static __always_inline u64 object_address(const void *object)
{
	volatile u64 *word = bpf_map_lookup_elem(&scratch, &(u32){0});

	if (!word)
		return 0;
	for (u32 i = 0; i < TRIES; i++) {
		u64 address, read;

		*word = (u64)object;
		address = read = *word;
		barrier_var(address); /* else the compiler uses the pointer, which equals it */
		if (likely(read == (u64)object))
			return address;
	}
	return 0;
}

/* Hash by 2^64 / golden ratio: Knuth, The Art of Computer Programming 3, 6.4. */
static __always_inline u32 slot_number(u64 address, u32 way)
{
	return ((address >> 6) * 0x9e3779b97f4a7c15 >> 51) ^ way;
}

static __always_inline struct ledger_slot *ledger_slot_at(u64 address, u32 way)
{
	u32 number = slot_number(address, way);

	return bpf_map_lookup_elem(&ledger_slots, &number);
}

/*
 * Events follow the end of a socket, too: the kernel drops the packets left in its queues. A socket that
 * opens is in TCP_CLOSE as well, and frees the slot first.
 */
static __always_inline bool is_its_own(struct sock *sk, const struct ledger_slot *slot)
{
	return likely(!slot->gone) || sk->__sk_common.skc_state == TCP_CLOSE;
}

static __always_inline struct ledger_slot *ledger_slot_find(struct sock *sk)
{
	u64 address = object_address(sk);

	for (u32 way = 0; way < LEDGER_WAYS; way++) {
		struct ledger_slot *slot = ledger_slot_at(address, way);

		if (slot && slot->address == address)
			return address && is_its_own(sk, slot) ? slot : NULL;
	}
	return NULL;
}

/* Claim a slot for an address, with a blank entry, if its address is still `before`. */
static __always_inline bool address_take(struct ledger_slot *slot, u64 before, u64 address)
{
	if (__sync_val_compare_and_swap(&slot->address, before, SLOT_IS_TAKEN) != before)
		return false;
	ledger_reset(&slot->entry);
	slot->gone = 0;
	__sync_lock_test_and_set(&slot->address, address);
	return true;
}

#define NO_SLOT LEDGER_SLOTS /* a lookup finds none */

/*
 * Claim a slot that is free, or whose socket is gone, with a blank entry; return its number. `anew`: the
 * socket starts anew, and takes over a slot of its address; else it has none.
 */
VERIFIED_ONCE u32 claim_slot(u64 address, u32 anew)
{
	struct ledger_slot *slot;
	u64 before;

	if (unlikely(!address))
		return NO_SLOT;
	for (u32 way = 0; anew && way < LEDGER_WAYS; way++) {
		slot = ledger_slot_at(address, way);
		if (slot && slot->address == address && address_take(slot, address, address))
			return slot_number(address, way);
	}
	for (u32 way = 0; way < LEDGER_WAYS; way++) {
		slot = ledger_slot_at(address, way);
		if (!slot)
			continue;
		before = slot->address;
		if (before != SLOT_IS_TAKEN && (!before || slot->gone) &&
		    address_take(slot, before, address))
			return slot_number(address, way);
	}
	return NO_SLOT;
}

static __always_inline struct ledger_slot *ledger_slot_claim(struct sock *sk, bool anew)
{
	u32 number = claim_slot(object_address(sk), anew);

	return bpf_map_lookup_elem(&ledger_slots, &number);
}

VERIFIED_ONCE int free_slot(u64 address)
{
	for (u32 way = 0; address && way < LEDGER_WAYS; way++) {
		struct ledger_slot *slot = ledger_slot_at(address, way);

		if (slot && slot->address == address)
			__sync_val_compare_and_swap(&slot->address, address, 0);
	}
	return 0;
}

/* An entry of the same address belongs to a previous socket, or to an earlier use of this one. */
static __always_inline void ledger_slot_free(struct sock *sk)
{
	free_slot(object_address(sk));
}

#endif
