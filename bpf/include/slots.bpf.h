/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where the ledger's entries live while an attempt is under way: a table of slots, by socket cookie.
 *
 * A hash map's insert and delete take two locks each, and creating socket storage allocates: an
 * attempt cost some 550 and 800 ns more with them, measured on 6.18. A slot is claimed by one compare-and-swap and given
 * back by one store. A socket has a slot of its own, and may take one of the WAYS behind it; who finds
 * none free goes to the hash. While nobody was displaced, look-ups end at the socket's own slot. Cookies are handed out in rows, so that sockets of
 * one time are neighbours here.
 *
 * BPF has compare-and-swap since Linux kernel commit 5ffa25502b5a "bpf: Add instructions for
 * atomic_[cmp]xchg" (in v5.12). Kernels before take the raw_tp programs, which use the hash alone.
 */
#ifndef CGNET_SLOTS_BPF_H
#define CGNET_SLOTS_BPF_H

#define SLOTS 4096 /* few enough to stay in a core's cache */
#define WAYS 4

struct ledger_table {
	struct ledger_entry slots[SLOTS];
};

/* One element, so that a slot is an offset and no look-up. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct ledger_table);
} ledger_slots SEC(".maps");

/* Preallocated: kernels before 6.1 warn when a tracing program allocates hash entries. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, struct ledger_entry);
} ledger_hash SEC(".maps");

/* Entries of typed programs that are not in their socket's own slot. */
u64 ledger_displaced;

static __always_inline struct ledger_entry *slot_find(u64 key)
{
	struct ledger_table *table = bpf_map_lookup_elem(&ledger_slots, &(u32){0});

	if (unlikely(!table))
		return NULL;
	for (u32 way = 0; way < WAYS; way++) {
		struct ledger_entry *slot = &table->slots[(key + way) % SLOTS];

		if (likely(slot->slot_key == key))
			return slot;
		if (likely(!ledger_displaced))
			return NULL;
	}
	return NULL;
}

static __always_inline struct ledger_entry *slot_claim(u64 key)
{
	struct ledger_table *table = bpf_map_lookup_elem(&ledger_slots, &(u32){0});

	if (unlikely(!table))
		return NULL;
	for (u32 way = 0; way < WAYS; way++) {
		struct ledger_entry *slot = &table->slots[(key + way) % SLOTS];

		if (likely(!slot->slot_key) &&
		    likely(!__sync_val_compare_and_swap(&slot->slot_key, 0, key))) {
			if (unlikely(way))
				__sync_fetch_and_add(&ledger_displaced, 1);
			return slot;
		}
	}
	return NULL;
}

static __always_inline void slot_free(struct ledger_entry *slot)
{
	struct ledger_table *table = bpf_map_lookup_elem(&ledger_slots, &(u32){0});
	u64 key = slot->slot_key;
	bool own = table && table->slots[key % SLOTS].slot_key == key;

	slot->slot_key = 0;
	if (unlikely(!own))
		__sync_fetch_and_add(&ledger_displaced, -1);
}

#endif
