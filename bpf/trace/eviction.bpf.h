/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * At most so many packets are followed at once: for one more, the oldest is given up, and counted as lost.
 *
 * Somebody may have it in his hands at that moment, on another CPU. So its trip is marked first, and passed over from
 * then on; its place in the map, which the next one gets, is free after a while that is longer than any program
 * runs.
 *
 * Most packets live no longer than some others need to be born. So births wait in a row of their CPU, and those
 * alone that are alive when its turn comes again go to the queue of all, where the oldest is found; the number of those
 * that live is noted for all CPUs in parcels. That takes a fetched addition, which typed programs have, and an
 * order that is only nearly right: user space asks for it (`cfg.young`) where so many may live that it doesn't matter.
 */
#ifndef CGNET_CROWD_BPF_H
#define CGNET_CROWD_BPF_H

#include "base/transport.bpf.h"

#define MOST_TRIPS 16384
#define MOST_WAITING 8192
#define SPARE 4 /* one in so many: places of those that are given up, but still there */
#define GRACE_NS 10000000
#define MOST_YOUNG 64
#define LOOKED_AT 32 /* births that one packet may go through for one that lives */

/* What a trip's `waits` says. */
#define WAITS 1
#define GIVEN_UP 2

struct birth {
	u64 key[2]; /* in its map; of trips the first alone */
	u64 packet;
	u64 given_up_ns;
};

/* Each map's packets in the order of their births, with many that have ended; and those given up. */
#define CROWD(name, most)                            \
	struct {                                     \
		__uint(type, BPF_MAP_TYPE_QUEUE);    \
		__uint(max_entries, 4 * (most));     \
		__type(value, struct birth);         \
	} name##_births SEC(".maps");                \
	struct {                                     \
		__uint(type, BPF_MAP_TYPE_QUEUE);    \
		__uint(max_entries, (most) / SPARE); \
		__type(value, struct birth);         \
	} name##_given_up SEC(".maps")

CROWD(trips, MOST_TRIPS);
CROWD(waiting, MOST_WAITING);

enum crowd {
	CROWD_TRIPS = 0,
	CROWD_WAITING = 1,
	CROWDS = 2,
};

/* How many live. What user space takes out it counts itself. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CROWDS);
	__type(key, u32);
	__type(value, u64);
} living SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CROWDS);
	__type(key, u32);
	__type(value, u64);
} taken_out SEC(".maps");

/* What a CPU has not told the others yet: births in a row, and by how many more or fewer live. */
struct young {
	u64 born;
	s64 living;
	struct birth births[MOST_YOUNG];
};

TYPED_ONLY struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CROWDS);
	__type(key, u32);
	__type(value, struct young);
} young SEC(".maps");

static __always_inline void count_for_all(u32 which, s64 more)
{
	u64 *count = bpf_map_lookup_elem(&living, &which);

	if (count)
		__sync_fetch_and_add(count, more);
}

static __always_inline void count_living(const bool typed, u32 which, s64 more)
{
	s64 parcel = cfg.young / 8, sum;
	struct young *ours;

	if (!typed || !cfg.young) {
		count_for_all(which, more);
		return;
	}
	ours = bpf_map_lookup_elem(&young, &which);
	if (!ours)
		return;
	sum = __sync_fetch_and_add(&ours->living, more) + more;
	if (sum > parcel || sum < -parcel)
		count_for_all(which, __sync_lock_test_and_set(&ours->living, 0));
}

static __always_inline bool is_crowded(u32 which, u32 most)
{
	u64 *count = bpf_map_lookup_elem(&living, &which);
	u64 *out = bpf_map_lookup_elem(&taken_out, &which);

	return count && out && (s64)(*count - *out) >= (s64)most;
}

static __always_inline bool is_given_up(const struct journey *journey)
{
	return *(volatile u32 *)&journey->waits & GIVEN_UP;
}

static __always_inline struct journey *born(void *map, const struct birth *birth)
{
	struct journey *journey = bpf_map_lookup_elem(map, birth->key);

	return journey && journey->event.trip.packet == birth->packet ? journey : NULL;
}

static __always_inline bool lives(void *map, const struct birth *birth)
{
	struct journey *journey = born(map, birth);

	return journey && !is_given_up(journey);
}

/* One that was given up long ago leaves its place. */
static __always_inline void clear_place(void *map, void *given_up, struct birth *birth)
{
	u64 now = bpf_ktime_get_ns();

	if (bpf_map_peek_elem(given_up, birth) || (s64)(now - birth->given_up_ns) < GRACE_NS ||
	    bpf_map_pop_elem(given_up, birth))
		return;
	if ((s64)(now - birth->given_up_ns) < GRACE_NS) /* another CPU had the older one */
		bpf_map_push_elem(given_up, birth, 0);
	else if (born(map, birth))
		bpf_map_delete_elem(map, birth->key);
}

/* Births of what has ended go, so that there is room for others; a long life goes to the end of the row. */
static __always_inline void clear_births(void *map, void *births, struct birth *birth)
{
	if (!bpf_map_peek_elem(births, birth) && !lives(map, birth) &&
	    !bpf_map_pop_elem(births, birth) && lives(map, birth))
		bpf_map_push_elem(births, birth, 0);
}

static __always_inline void give_up_oldest(void *map, void *births, void *given_up, u32 which,
					   struct birth *birth)
{
	struct journey *journey;

	for (u32 i = 0; i < LOOKED_AT; i++) {
		if (bpf_map_pop_elem(births, birth))
			return;
		journey = born(map, birth);
		if (!journey || is_given_up(journey))
			continue;
		birth->given_up_ns = bpf_ktime_get_ns();
		if (bpf_map_push_elem(given_up, birth, 0)) {
			bpf_map_push_elem(births, birth, 0);
			return;
		}
		journey->waits |= GIVEN_UP;
		count_for_all(which, -1);
		count_lost(LOST_PACKETS);
		return;
	}
}

static __always_inline void make_room(void *map, void *births, void *given_up, u32 which, u32 most)
{
	struct birth birth; /* one for all: the stack is small */
	bool crowded = is_crowded(which, most);

	if (cfg.young && !crowded) /* what comes to the queue makes its room: see grows_old() */
		return;
	clear_place(map, given_up, &birth);
	if (crowded) {
		give_up_oldest(map, births, given_up, which, &birth);
		return;
	}
	clear_births(map, births, &birth);
	clear_births(map, births, &birth);
}

static __always_inline void queue_birth(void *births, const struct birth *birth)
{
	struct birth oldest;

	if (!bpf_map_push_elem(births, birth, 0) || bpf_map_pop_elem(births, &oldest))
		return;
	bpf_map_push_elem(births, birth, 0);
	bpf_map_push_elem(births, &oldest, 0);
}

/* The one whose place the newest takes, if it lives still. */
static __always_inline void grows_old(void *map, void *births, void *given_up,
				      const struct birth *birth)
{
	struct birth other;

	if (!birth->packet || !lives(map, birth))
		return;
	clear_place(map, given_up, &other);
	clear_births(map, births, &other);
	clear_births(map, births, &other);
	queue_birth(births, birth);
}

static __always_inline void is_born(const bool typed, void *map, void *births, void *given_up,
				    const struct birth *birth, u32 which)
{
	struct young *ours;
	struct birth older;
	u64 place;

	count_living(typed, which, 1);
	if (!typed || !cfg.young) {
		queue_birth(births, birth);
		return;
	}
	ours = bpf_map_lookup_elem(&young, &which);
	if (!ours)
		return;
	place = __sync_fetch_and_add(&ours->born, 1) & (cfg.young - 1);
	barrier_var(place);
	place &= MOST_YOUNG - 1; /* for the verifier */
	older = ours->births[place];
	ours->births[place] = *birth;
	grows_old(map, births, given_up, &older);
}

#endif
