/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packets that TCP has received, and the application has not read. */
#ifndef CGNET_TRACE_WAITING_BPF_H
#define CGNET_TRACE_WAITING_BPF_H

#include "trace/in_flight.bpf.h"

struct waiting_key {
	u64 sk;
	u64 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_WAITING + MAX_WAITING / SPARE);
	__type(key, struct waiting_key);
	__type(value, struct in_flight_packet);
} waiting SEC(".maps");

/* Last packet queued on this CPU: TCP may drop it at once, for lack of memory or for its sequence numbers. */
struct last_one {
	u64 skb;
	struct waiting_key key;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct last_one);
} last_one SEC(".maps");

/* Entry of a waiting packet, unless it was evicted. */
static __always_inline struct in_flight_packet *find_waiting(const struct waiting_key *key)
{
	struct in_flight_packet *in_flight = bpf_map_lookup_elem(&waiting, key);

	return in_flight && !is_evicted(in_flight) ? in_flight : NULL;
}

#endif
