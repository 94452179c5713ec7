/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Histograms of microseconds in the kernel, one for each key of the counts. Counterpart of
 * src/cgnet/counting/histograms.py. There are two tables, as for counts.
 */
#ifndef CGNET_COUNT_HISTOGRAM_BPF_H
#define CGNET_COUNT_HISTOGRAM_BPF_H

#include "count/count.bpf.h"

CROSSES_TO_USER_SPACE(histogram);
CONFIG(count_config);

#define MAX_HISTOGRAMS 4096

/*
 * No types: before Linux kernel commit aa3496accc41 "bpf: Refactor kptr_off_tab into btf_record" (in v6.2) a
 * map of maps accepts no map whose value is a struct with a type, after one without.
 */
struct histogram_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_HISTOGRAMS);
	__uint(key_size, sizeof(struct count_key));
	__uint(value_size, sizeof(struct histogram));
} histograms_even SEC(".maps"), histograms_odd SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct histogram_table);
} histograms SEC(".maps") = {.values = {&histograms_even}};

/* `shift` if the value needs more bits than that, else 0. No branch, which verifiers would explore both ways. */
static __always_inline u32 shift_if_above(u64 value, u32 shift)
{
	u64 difference = (1ULL << shift) - 1 - value;

	barrier_var(difference);
	return (difference >> 63) * shift;
}

static __always_inline u32 log2_of(u64 value)
{
	u32 power = 0;

	if (value >> 32)
		return 32; /* more than an hour */
	for (u32 shift = 16; shift; shift >>= 1) {
		u32 step = shift_if_above(value, shift);

		value >>= step;
		power += step;
	}
	return power;
}

/* Four buckets per power of two, each a quarter of its lower bound wide. Each value below 4 has its own. */
static __always_inline u32 log2_bucket(u64 value)
{
	u32 power = log2_of(value);

	if (value < 4)
		return value;
	if (value >> 33) /* more than two hours: the last bucket has all longer times */
		return CGNET_BUCKETS - 1;
	return 4 * (power - 1) + (value >> (power - 2) & 3);
}

static __always_inline u32 linear_bucket(u64 value)
{
	u64 steps;

	if (value < count_config.histogram_low)
		return 0;
	steps = (value - count_config.histogram_low) / (count_config.histogram_step ?: 1);
	return 1 + (steps < count_config.histogram_steps ? steps : count_config.histogram_steps);
}

#define EXCHANGES 4 /* attempts, as another CPU may win */

/* Store a value if it is less than the stored one, or greater. */
static __always_inline void keep_extreme(const bool typed, u64 *place, u64 value, bool least)
{
	for (u32 i = 0; i < EXCHANGES; i++) {
		u64 old = *(volatile u64 *)place;

		if (least ? value >= old : value <= old)
			return;
		if (!typed) {
			*place = value;
			return;
		}
		if (__sync_val_compare_and_swap(place, old, value) == old)
			return;
	}
}

static __always_inline void histogram_put(const bool typed, struct histogram *histogram, u64 value)
{
	u32 bucket;

	bucket = count_config.histogram == HISTOGRAM_LINEAR ? linear_bucket(value)
							    : log2_bucket(value);
	if (bucket >= CGNET_BUCKETS)
		bucket = CGNET_BUCKETS - 1;
	barrier_var(bucket);
	/* The addition of a constant 0 would become an atomic or, which kernels before 5.12 do not know. */
	barrier_var(value);
	__sync_fetch_and_add(&histogram->buckets[bucket & (CGNET_BUCKETS - 1)], 1);
	__sync_fetch_and_add(&histogram->sum, value);
	__sync_fetch_and_add(&histogram->count, 1);
	keep_extreme(typed, &histogram->min, value, true);
	keep_extreme(typed, &histogram->max, value, false);
}

static __always_inline void histogram_add(const bool typed, const struct count_key *key, u64 value)
{
	static const struct histogram blank = {.min = ~0ULL};
	struct histogram *histogram = counted(&histograms, key, &blank);

	if (histogram)
		histogram_put(typed, histogram, value);
}

#endif
