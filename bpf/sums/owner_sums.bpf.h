/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sums by owner: events send nothing to user space.
 *
 * There are two tables of each kind, as for counts: see count/count.bpf.h. An owner is known once a program has
 * counted for it, and stays known. Beyond the limit there is one entry for all others, which stay in it: no
 * owner's sum begins anew.
 */
#ifndef CGNET_SUMS_OWNER_SUMS_BPF_H
#define CGNET_SUMS_OWNER_SUMS_BPF_H

#include "session/private.bpf.h"
#include "count/histogram.bpf.h"
#include "owner/entry.bpf.h"
#include "abi/connect.h"
#include "abi/drop.h"
#include "abi/life.h"
#include "abi/retrans.h"
#include "abi/session.h"

CROSSES_TO_USER_SPACE(owner_sums);
CROSSES_TO_USER_SPACE(sum_key);
CONFIG(session_config);

/*
 * Memory grows with the owners. User space has the entries allocated at once on kernels whose programs may not
 * allocate: before Linux kernel commit 7c8199e24fa0 "bpf: Introduce any context BPF specific memory allocator."
 * (in v6.1).
 */
struct owner_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(u64));
	__uint(value_size, sizeof(struct owner_sums));
} owner_sums_even SEC(".maps"), owner_sums_odd SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct owner_table);
} owner_sums SEC(".maps") = {.values = {&owner_sums_even}};

struct number_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct sum_key));
	__uint(value_size, sizeof(u64));
} number_sums_even SEC(".maps"), number_sums_odd SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct number_table);
} number_sums SEC(".maps") = {.values = {&number_sums_even}};

/* Owners, by cgroup, that have an entry of their own from now on. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, u32);
} known_owners SEC(".maps");

static const struct owner_sums blank_sums = {.latency.least = ~0U, .rtt.least = ~0U};

static __always_inline bool tells(u32 signal)
{
	return session_config.rows & signal;
}

static __always_inline bool is_wanted(u32 signals)
{
	return (session_config.rows | session_config.sums) & signals;
}

static __always_inline bool sums_up(u32 signal)
{
	return session_config.sums & signal;
}

static __always_inline bool is_of_everybody(u32 signal)
{
	return session_config.everybody & signal;
}

static __always_inline u64 owner_in_sums(u64 cgroup_id)
{
	u32 known = 1;

	if (bpf_map_lookup_elem(&known_owners, &cgroup_id) ||
	    !bpf_map_update_elem(&known_owners, &cgroup_id, &known, BPF_ANY))
		return cgroup_id;
	return CGNET_OTHER_OWNERS;
}

/* User space puts the entry of other owners into each table: there is one always. */
static __always_inline struct owner_sums *sums_of_owner(u64 cgroup_id)
{
	void *table = bpf_map_lookup_elem(&owner_sums, &(u32){0});
	struct owner_sums *sums;
	u64 key = cgroup_id;

	if (!table)
		return NULL;
	sums = bpf_map_lookup_elem(table, &key);
	if (likely(sums))
		return sums;
	key = owner_in_sums(cgroup_id);
	bpf_map_update_elem(table, &key, &blank_sums, BPF_NOEXIST);
	sums = bpf_map_lookup_elem(table, &key);
	if (sums)
		return sums;
	key = CGNET_OTHER_OWNERS;
	sums = bpf_map_lookup_elem(table, &key);
	if (!sums)
		count_lost(LOST_COUNTS);
	return sums;
}

static __always_inline void count_number(u64 cgroup_id, u32 kind, u32 number)
{
	struct sum_key key = {
		.cgroup_id = owner_in_sums(cgroup_id), .kind = kind, .number = number};
	void *table = bpf_map_lookup_elem(&number_sums, &(u32){0});
	u64 zero = 0, *count;

	if (!table)
		return;
	count = bpf_map_lookup_elem(table, &key);
	if (!count) {
		bpf_map_update_elem(table, &key, &zero, BPF_NOEXIST);
		count = bpf_map_lookup_elem(table, &key);
	}
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		count_lost(LOST_COUNTS);
}

static __always_inline void keep_extreme_of(u32 *place, u32 value, bool least)
{
	for (u32 i = 0; i < EXCHANGES; i++) {
		u32 old = *(volatile u32 *)place;

		if (least ? value >= old : value <= old)
			return;
		if (__sync_val_compare_and_swap(place, old, value) == old)
			return;
	}
}

static __always_inline void put_in_histogram(struct sums_histogram *histogram, u64 value)
{
	u64 bucket = bucket_of(value);
	u32 number = value < ~0U ? value : ~0U;

	__sync_fetch_and_add(&histogram->buckets[bucket], 1);
	__sync_fetch_and_add(&histogram->sum, value);
	__sync_fetch_and_add(&histogram->count, 1);
	keep_extreme_of(&histogram->least, number, true);
	keep_extreme_of(&histogram->greatest, number, false);
}

/* -- attempts */

VERIFIED_ONCE int add_attempt(u64 cgroup_id, s32 result, u64 latency_us)
{
	struct owner_sums *sums;

	if (result != RESULT_OK) {
		count_number(cgroup_id, SUM_FAILURES, result);
		return 0;
	}
	sums = sums_of_owner(cgroup_id);
	if (!sums)
		return 0;
	__sync_fetch_and_add(&sums->established, 1);
	put_in_histogram(&sums->latency, latency_us);
	return 0;
}

static __always_inline void sum_attempt(const struct owner *owner, const struct outcome *outcome)
{
	if (sums_up(SIGNAL_CONNECT))
		add_attempt(owner->cgroup_id, outcome->result, outcome->latency_ns / NSEC_PER_USEC);
}

VERIFIED_ONCE int add_accept(u64 cgroup_id)
{
	struct owner_sums *sums = sums_of_owner(cgroup_id);

	if (sums)
		__sync_fetch_and_add(&sums->accepts, 1);
	return 0;
}

static __always_inline void sum_accept(const struct owner *owner)
{
	if (sums_up(SIGNAL_ACCEPT))
		add_accept(owner->cgroup_id);
}

/* -- samples */

VERIFIED_ONCE int add_rtt(u64 cgroup_id, u64 rtt_us)
{
	struct owner_sums *sums = sums_of_owner(cgroup_id);

	if (sums)
		put_in_histogram(&sums->rtt, rtt_us);
	return 0;
}

static __always_inline void sum_rtt(const struct owner *owner, u32 rtt_us)
{
	if (sums_up(SIGNAL_RTT))
		add_rtt(owner->cgroup_id, rtt_us);
}

/* -- lives */

/*
 * Growth of a value that only grows. The end of a connection and a look at open ones may add it at once: each
 * growth is added by one of them.
 */
static __always_inline u64 growth(u64 *told, u64 now)
{
	for (u32 i = 0; i < EXCHANGES; i++) {
		u64 old = *(volatile u64 *)told;

		if ((s64)(now - old) <= 0)
			return 0;
		if (__sync_val_compare_and_swap(told, old, now) == old)
			return now - old;
	}
	return 0;
}

#define ADD_GROWTH(sums, told, life, field)                          \
	do {                                                         \
		u64 grown = growth(&(told)->field, (life)->field);   \
		if (grown)                                           \
			__sync_fetch_and_add(&(sums)->field, grown); \
	} while (0)

/* What a connection that is open has carried since it was looked at last. */
VERIFIED_ONCE int add_growth(u64 cgroup_id, struct sums_private *told, const struct life *life)
{
	struct owner_sums *sums;

	if (!told || !life)
		return 0;
	sums = sums_of_owner(cgroup_id);
	if (!sums)
		return 0;
	ADD_GROWTH(sums, told, life, tx_bytes);
	ADD_GROWTH(sums, told, life, rx_bytes);
	ADD_GROWTH(sums, told, life, tx_segs);
	ADD_GROWTH(sums, told, life, rx_segs);
	if (life->busy_ticks != ~0U) {
		ADD_GROWTH(sums, told, life, busy_ticks);
		ADD_GROWTH(sums, told, life, rwnd_ticks);
		ADD_GROWTH(sums, told, life, sndbuf_ticks);
	}
	return 0;
}

#define ADD_ALL(sums, life, field)                                     \
	do {                                                           \
		u64 carried = (life)->field;                           \
		if (carried)                                           \
			__sync_fetch_and_add(&(sums)->field, carried); \
	} while (0)

/* `carried`: 1 if all that the connection carried is to be counted. */
VERIFIED_ONCE int add_end(u64 cgroup_id, const struct life *life, u32 carried)
{
	struct owner_sums *sums;
	u32 cause;

	if (!life)
		return 0;
	sums = sums_of_owner(cgroup_id);
	cause = life->close_cause;
	if (!sums)
		return 0;
	if (cause < CGNET_CLOSE_CAUSES)
		__sync_fetch_and_add(&sums->closes[cause], 1);
	if (!carried)
		return 0;
	ADD_ALL(sums, life, tx_bytes);
	ADD_ALL(sums, life, rx_bytes);
	ADD_ALL(sums, life, tx_segs);
	ADD_ALL(sums, life, rx_segs);
	if (life->busy_ticks != ~0U) {
		ADD_ALL(sums, life, busy_ticks);
		ADD_ALL(sums, life, rwnd_ticks);
		ADD_ALL(sums, life, sndbuf_ticks);
	}
	return 0;
}

/*
 * The sums exclude traffic from before the start. A connection from before the start has no baseline until the first
 * iterator run visits it, and only later traffic counts. One atomic operation decides whether that run or the end of
 * the connection comes first; after a run, both add only the growth.
 */
static __always_inline void sum_end(const struct owner *owner, struct ledger_entry *entry,
				    const struct life *life)
{
	struct sums_private *mine = &entry->private.sums;
	u64 state;

	if (!sums_up(SIGNAL_LIFE))
		return;
	state = __sync_lock_test_and_set(&mine->state, SUMS_ENDED);
	add_end(owner->cgroup_id, life, state == SUMS_UNTOLD && entry->private.life.established_ns);
	if (state == SUMS_TOLD)
		add_growth(owner->cgroup_id, mine, life);
}

VERIFIED_ONCE int add_turn(u64 cgroup_id, u64 took_us)
{
	struct owner_sums *sums = sums_of_owner(cgroup_id);

	if (!sums)
		return 0;
	__sync_fetch_and_add(&sums->turns, 1);
	__sync_fetch_and_add(&sums->turns_us, took_us);
	keep_extreme_of(&sums->greatest_turn_us, took_us, false);
	return 0;
}

static __always_inline void sum_turn(const struct owner *owner, u32 took_us)
{
	if (sums_up(SIGNAL_TURNS))
		add_turn(owner->cgroup_id, took_us);
}

/* -- drops and resends */

VERIFIED_ONCE int add_drop(u64 cgroup_id, u32 drop_class, u32 reason)
{
	struct owner_sums *sums = sums_of_owner(cgroup_id);

	if (sums && drop_class < CGNET_DROP_CLASSES)
		__sync_fetch_and_add(&sums->drops[drop_class], 1);
	count_number(cgroup_id, SUM_DROPS, reason);
	return 0;
}

static __always_inline void sum_drop(const struct owner *owner, const struct drop *drop)
{
	if (sums_up(SIGNAL_DROP))
		add_drop(owner->cgroup_id, drop->drop_class, drop->reason);
}

VERIFIED_ONCE int add_resend(u64 cgroup_id, u32 cause, u32 segs)
{
	struct owner_sums *sums = sums_of_owner(cgroup_id);

	if (sums && cause < CGNET_RESEND_CAUSES)
		__sync_fetch_and_add(&sums->resends[cause], segs);
	return 0;
}

static __always_inline void sum_resend(const struct owner *owner, const struct retrans *retrans)
{
	if (sums_up(SIGNAL_RETRANS))
		add_resend(owner->cgroup_id, retrans->cause, retrans->segs);
}

#endif
