/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Limit on the packets in flight: evict the oldest packet in flight to make room for another, and count it as
 * lost.
 *
 * Another CPU may hold the evicted packet. So eviction first marks the packet's entry, and lookups skip it
 * from then on; the map slot is freed after a grace period that is longer than any program runs.
 *
 * Most packets end before many others start. So each CPU keeps its recently tracked packets in a ring, and
 * queues for eviction only those still in flight when the ring reuses their slot. CPUs publish changes of the
 * number in flight in batches. This requires an atomic fetch-and-add, which only typed programs have, and
 * gives only an approximate order: user space enables it (`trace_config.recent`) where the limit is high enough for
 * that not to matter.
 */
#ifndef CGNET_TRACE_EVICTION_BPF_H
#define CGNET_TRACE_EVICTION_BPF_H

#include "base/transport.bpf.h"
#include "abi/trace.h"

CONFIG(trace_config);

#define MAX_WAITING 8192
#define SPARE 4 /* 1/SPARE extra slots hold evicted packets until they are freed */
#define GRACE_NS 10000000
#define LOOKED_AT 32 /* entries that one eviction may pop to find a packet in flight */

/* Flags of in_flight_packet.waits. */
#define WAITS 1

struct packet_ref {
	u64 key[2]; /* key in its map; packets_in_flight uses the first word only */
	u64 packet;
	u64 evicted_ns;
};

/* Queues of each map: its packets in creation order, many of which have ended; and its evicted packets. */
#define EVICTION_QUEUES(name, most)                  \
	struct {                                     \
		__uint(type, BPF_MAP_TYPE_QUEUE);    \
		__uint(max_entries, 4 * (most));     \
		__type(value, struct packet_ref);    \
	} name##_order SEC(".maps");                 \
	struct {                                     \
		__uint(type, BPF_MAP_TYPE_QUEUE);    \
		__uint(max_entries, (most) / SPARE); \
		__type(value, struct packet_ref);    \
	} name##_evicted SEC(".maps")

EVICTION_QUEUES(in_flight, CGNET_IN_FLIGHT);
EVICTION_QUEUES(waiting, MAX_WAITING);

enum tracked_kind {
	TRACKED_IN_FLIGHT = 0,
	TRACKED_WAITING = 1,
	TRACKED_KINDS = 2,
};

/* Number of packets in flight. User space counts its own removals in removed_by_user. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TRACKED_KINDS);
	__type(key, u32);
	__type(value, u64);
} in_flight_count SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TRACKED_KINDS);
	__type(key, u32);
	__type(value, u64);
} removed_by_user SEC(".maps");

/* Per-CPU state that is not published yet: a ring of recent packets, and the change of the number in flight. */
struct recent {
	u64 tracked;
	s64 in_flight_count;
	struct packet_ref order[CGNET_RECENT];
};

TYPED_ONLY struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TRACKED_KINDS);
	__type(key, u32);
	__type(value, struct recent);
} recent SEC(".maps");

static __always_inline void count_for_all(u32 which, s64 more)
{
	u64 *count = bpf_map_lookup_elem(&in_flight_count, &which);

	if (count)
		__sync_fetch_and_add(count, more);
}

static __always_inline void count_in_flight(u32 which, s64 more)
{
	s64 batch_size = trace_config.recent / 8, sum;
	struct recent *ours;

	if (!TYPED || !trace_config.recent) {
		count_for_all(which, more);
		return;
	}
	ours = bpf_map_lookup_elem(&recent, &which);
	if (!ours)
		return;
	sum = __sync_fetch_and_add(&ours->in_flight_count, more) + more;
	if (sum > batch_size || sum < -batch_size)
		count_for_all(which, __sync_lock_test_and_set(&ours->in_flight_count, 0));
}

static __always_inline bool is_at_limit(u32 which, u32 most)
{
	u64 *count = bpf_map_lookup_elem(&in_flight_count, &which);
	u64 *out = bpf_map_lookup_elem(&removed_by_user, &which);

	return count && out && (s64)(*count - *out) >= (s64)most;
}

static __always_inline bool is_evicted(const struct in_flight_packet *in_flight)
{
	return *(volatile u32 *)&in_flight->waits & CGNET_EVICTED;
}

static __always_inline struct in_flight_packet *tracked(void *map, const struct packet_ref *ref)
{
	struct in_flight_packet *in_flight = bpf_map_lookup_elem(map, ref->key);

	return in_flight && in_flight->event.trace.packet == ref->packet ? in_flight : NULL;
}

static __always_inline bool is_in_flight(void *map, const struct packet_ref *ref)
{
	struct in_flight_packet *in_flight = tracked(map, ref);

	return in_flight && !is_evicted(in_flight);
}

/* Free the slot of a packet that was evicted long ago. */
static __always_inline void free_evicted(void *map, void *evicted, struct packet_ref *ref)
{
	u64 now = bpf_ktime_get_ns();

	if (bpf_map_peek_elem(evicted, ref) || (s64)(now - ref->evicted_ns) < GRACE_NS ||
	    bpf_map_pop_elem(evicted, ref))
		return;
	if ((s64)(now - ref->evicted_ns) < GRACE_NS) /* another CPU popped the older one */
		bpf_map_push_elem(evicted, ref, 0);
	else if (tracked(map, ref))
		bpf_map_delete_elem(map, ref->key);
}

/* Drop a queue entry whose packet has ended, to make room for others; requeue one whose packet is in flight. */
static __always_inline void trim_order(void *map, void *order, struct packet_ref *ref)
{
	if (!bpf_map_peek_elem(order, ref) && !is_in_flight(map, ref) &&
	    !bpf_map_pop_elem(order, ref) && is_in_flight(map, ref))
		bpf_map_push_elem(order, ref, 0);
}

static __always_inline void evict_oldest(void *map, void *order, void *evicted, u32 which,
					 struct packet_ref *ref)
{
	struct in_flight_packet *in_flight;

	for (u32 i = 0; i < LOOKED_AT; i++) {
		if (bpf_map_pop_elem(order, ref))
			return;
		in_flight = tracked(map, ref);
		if (!in_flight || is_evicted(in_flight))
			continue;
		ref->evicted_ns = bpf_ktime_get_ns();
		if (bpf_map_push_elem(evicted, ref, 0)) {
			bpf_map_push_elem(order, ref, 0);
			return;
		}
		in_flight->waits |= CGNET_EVICTED;
		count_for_all(which, -1);
		count_lost(LOST_PACKETS);
		return;
	}
}

static __always_inline void evict_if_full(void *map, void *order, void *evicted, u32 which,
					  u32 most)
{
	struct packet_ref ref; /* shared by all calls: the stack is small */
	bool at_limit = is_at_limit(which, most);

	if (trace_config.recent && !at_limit) /* promote() makes room in the queue */
		return;
	free_evicted(map, evicted, &ref);
	if (at_limit) {
		evict_oldest(map, order, evicted, which, &ref);
		return;
	}
	trim_order(map, order, &ref);
	trim_order(map, order, &ref);
}

static __always_inline void queue_ref(void *order, const struct packet_ref *ref)
{
	struct packet_ref oldest;

	if (!bpf_map_push_elem(order, ref, 0) || bpf_map_pop_elem(order, &oldest))
		return;
	bpf_map_push_elem(order, ref, 0);
	bpf_map_push_elem(order, &oldest, 0);
}

/* Queue the recent packet whose slot the newest takes, if it is still in flight. */
static __always_inline void promote(void *map, void *order, void *evicted,
				    const struct packet_ref *ref)
{
	struct packet_ref other;

	if (!ref->packet || !is_in_flight(map, ref))
		return;
	free_evicted(map, evicted, &other);
	trim_order(map, order, &other);
	trim_order(map, order, &other);
	queue_ref(order, ref);
}

static __always_inline void track(void *map, void *order, void *evicted,
				  const struct packet_ref *ref, u32 which)
{
	struct recent *ours;
	struct packet_ref older;
	u64 place;

	count_in_flight(which, 1);
	if (!TYPED || !trace_config.recent) {
		queue_ref(order, ref);
		return;
	}
	ours = bpf_map_lookup_elem(&recent, &which);
	if (!ours)
		return;
	place = __sync_fetch_and_add(&ours->tracked, 1) & (trace_config.recent - 1);
	barrier_var(place);
	place &= CGNET_RECENT - 1; /* for the verifier */
	older = ours->order[place];
	ours->order[place] = *ref;
	promote(map, order, evicted, &older);
}

#endif
