/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Per-CPU table of the histograms of all stages, for the few keys that most packets of a CPU have: a packet
 * costs one lookup for all stages, instead of one in a hash, by a long key, per stage. Packets of other keys
 * use the hash.
 *
 * There are two tables, as for counts. A slot belongs to the first key that claims it, until the table is
 * read.
 */
#ifndef CGNET_COUNT_PERCPU_HISTOGRAMS_BPF_H
#define CGNET_COUNT_PERCPU_HISTOGRAMS_BPF_H

#include "count/histogram.bpf.h"

CROSSES_TO_USER_SPACE(sums_head);

struct stage_sums {
	struct sums_head head;
	struct histogram stages[CGNET_STAGE_KINDS];
};

#if TYPED
/* CGNET_SUMS_EACH slots per CPU; user space sets the number of entries. No types: see histogram.bpf.h. */
struct sums_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(struct stage_sums));
} sums_even SEC(".maps"), sums_odd SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct sums_table);
} sums SEC(".maps") = {.values = {&sums_even}};

#define KEY_WORDS (sizeof(struct count_key) / sizeof(u64))

static __always_inline bool is_same_key(const struct count_key *one, const struct count_key *other)
{
	const u64 *left = (const u64 *)one, *right = (const u64 *)other;
	u64 difference = 0;

	for (u32 i = 0; i < KEY_WORDS; i++)
		difference |= left[i] ^ right[i];
	return !difference;
}

static __always_inline u32 mix_of_key(const struct count_key *key)
{
	const u64 *words = (const u64 *)key;
	u64 mix = 0;

	for (u32 i = 0; i < KEY_WORDS; i++)
		mix ^= words[i] * (2 * i + 1);
	return mix * 0x9e3779b97f4a7c15 >> 32; /* Knuth's hash, as in slots.bpf.h */
}

/* A softirq may interrupt: it finds the slot claimed, and takes another one. */
static __always_inline bool begin_sums(struct stage_sums *its, const struct count_key *key)
{
	if (__sync_val_compare_and_swap(&its->head.state, SUMS_FREE, SUMS_BEGUN) != SUMS_FREE)
		return false;
	its->head.key = *key;
	for (u32 i = 0; i < CGNET_STAGE_KINDS; i++)
		its->stages[i].min = ~0ULL;
	__sync_lock_test_and_set(&its->head.state, SUMS_OF_KEY);
	return true;
}

/* Place plus 1 of the sums of a key on this CPU; 0 if other keys have the slots. */
static __always_inline u32 sums_place(const struct count_key *key)
{
	void *table = bpf_map_lookup_elem(&sums, &(u32){0});
	u32 first = bpf_get_smp_processor_id() * CGNET_SUMS_EACH, mix = mix_of_key(key);

	if (!table)
		return 0;
	for (u32 i = 0; i < CGNET_SUMS_EACH; i++) {
		u32 place = first + (mix + i) % CGNET_SUMS_EACH;
		struct stage_sums *its = bpf_map_lookup_elem(table, &place);
		u64 state;

		if (!its)
			return 0;
		state = *(volatile u64 *)&its->head.state;
		if (likely(state == SUMS_OF_KEY) ? is_same_key(&its->head.key, key)
						 : begin_sums(its, key))
			return place + 1;
	}
	return 0;
}

static __always_inline struct stage_sums *sums_at(u32 place_plus_1)
{
	void *table = bpf_map_lookup_elem(&sums, &(u32){0});
	u32 place = place_plus_1 - 1;

	return table && place_plus_1 ? bpf_map_lookup_elem(table, &place) : NULL;
}
#endif

#endif
