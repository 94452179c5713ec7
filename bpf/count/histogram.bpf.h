/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Histograms in the kernel, one for each key of the counts. User space sets the bounds of their buckets: see
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

/*
 * Bucket of a value below 2^63, by binary search. The sign of a difference takes the place of a branch, which
 * verifiers would explore both ways. What clang makes of the sums has no bounds that a kernel 5.10 knows: the
 * masks give them.
 */
static __always_inline u64 bucket_of(u64 value)
{
	u64 bucket = 0;

	for (u64 step = CGNET_BUCKETS / 2; step; step >>= 1) {
		u64 at = bucket + step - 1, difference;

		barrier_var(at);
		difference = value - count_config.bucket_starts[at & (CGNET_BUCKETS - 1)];
		barrier_var(difference);
		bucket += (~difference >> 63) * step;
	}
	barrier_var(bucket);
	return bucket & (CGNET_BUCKETS - 1);
}

#define EXCHANGES 4 /* attempts, as another CPU may win */

/* Store a value if it is less than the stored one, or greater. */
static __always_inline void keep_extreme(u64 *place, u64 value, bool least)
{
	for (u32 i = 0; i < EXCHANGES; i++) {
		u64 old = *(volatile u64 *)place;

		if (least ? value >= old : value <= old)
			return;
		if (!TYPED) {
			*place = value;
			return;
		}
		if (__sync_val_compare_and_swap(place, old, value) == old)
			return;
	}
}

static __always_inline void histogram_put(struct histogram *histogram, u64 value)
{
	u64 bucket = bucket_of(value);

	/* The addition of a constant 0 would become an atomic or, which kernels before 5.12 do not know. */
	barrier_var(value);
	__sync_fetch_and_add(&histogram->buckets[bucket], 1);
	__sync_fetch_and_add(&histogram->sum, value);
	__sync_fetch_and_add(&histogram->count, 1);
	keep_extreme(&histogram->min, value, true);
	keep_extreme(&histogram->max, value, false);
}

static __always_inline void histogram_add(const struct count_key *key, u64 value)
{
	static const struct histogram blank = {.min = ~0ULL};
	struct histogram *histogram = counted(&histograms, key, &blank);

	if (histogram)
		histogram_put(histogram, value);
}

#endif
