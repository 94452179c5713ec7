/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The packets that are on their way now, by the address of their skb.
 *
 * An address is used again at once, so that a packet is known by its address and what TCP numbers it by: the
 * sequence number and the payload's length, which stay the same through bridges, routers and NAT. An skb is
 * in one hand at a time, and so is its trip.
 */
#ifndef CGNET_TRIPS_BPF_H
#define CGNET_TRIPS_BPF_H

#include "base/packet.bpf.h"
#include "trace/reject_cache.bpf.h"
#include "owner/ledger.bpf.h"
#include "trace/eviction.bpf.h"

CROSSES_TO_USER_SPACE(trip_event);
CROSSES_TO_USER_SPACE(journey);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MOST_TRIPS + MOST_TRIPS / SPARE);
	__type(key, u64);
	__type(value, struct journey);
} trips SEC(".maps");

/* How many packets began on this CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} packet_numbers SEC(".maps");

static __always_inline u64 next_packet_number(void)
{
	u64 *count = bpf_map_lookup_elem(&packet_numbers, &(u32){0});

	if (!count)
		return 0;
	*count += 1;
	return *count << 16 | (u16)bpf_get_smp_processor_id();
}

static __always_inline struct journey *trip_find(struct sk_buff *skb)
{
	struct journey *journey;
	u64 address = (u64)skb;

	if (is_refused(skb))
		return NULL;
	journey = bpf_map_lookup_elem(&trips, &address);
	return journey && !is_given_up(journey) ? journey : NULL;
}

static __always_inline void trip_forget(const bool typed, struct sk_buff *skb)
{
	u64 address = (u64)skb;

	if (!bpf_map_delete_elem(&trips, &address))
		count_living(typed, CROWD_TRIPS, -1);
}

/* A global function: it is verified once. */
__noinline int make_room_for_trip(u32 most)
{
	make_room(&trips, &trips_births, &trips_given_up, CROWD_TRIPS, most);
	return 0;
}

/* Not global ones, which take no pointer as a number. */
static __noinline int trip_is_born_typed(struct sk_buff *skb, u64 packet)
{
	struct birth birth = {.key = {(u64)skb}, .packet = packet};

	is_born(true, &trips, &trips_births, &trips_given_up, &birth, CROWD_TRIPS);
	return 0;
}

static __noinline int trip_is_born_raw(struct sk_buff *skb, u64 packet)
{
	struct birth birth = {.key = {(u64)skb}, .packet = packet};

	is_born(false, &trips, &trips_births, &trips_given_up, &birth, CROWD_TRIPS);
	return 0;
}

static __always_inline u32 last_stage(const struct journey *journey)
{
	u32 last = journey->event.trip.stages - 1;

	barrier_var(last);
	return last < CGNET_STAGES ? journey->event.stages[last].at : 0;
}

/* GRO makes one packet of several: the first one grows. */
static __always_inline bool grew_by_gro(const struct journey *journey, const struct packet *packet)
{
	return packet->payload > journey->event.trip.payload && last_stage(journey) == STAGE_GRO;
}

static __always_inline bool is_same_packet(struct journey *journey, const struct packet *packet)
{
	if (journey->event.trip.seq != packet->seq)
		return false;
	if (grew_by_gro(journey, packet)) {
		journey->event.trip.payload = packet->payload;
		journey->event.trip.len = packet->len;
	}
	return journey->event.trip.payload == packet->payload;
}

static __always_inline void store_trip(struct trip *trip, const struct packet *packet)
{
	trip->packet = next_packet_number();
	trip->seq = packet->seq;
	trip->ack = packet->ack;
	trip->len = packet->len;
	trip->payload = packet->payload;
	trip->tcp_flags = packet->flags;
}

/* How many packets the wire will see of it. */
static __always_inline u16 segments_of(const bool typed, struct sk_buff *skb)
{
	unsigned char *end = READ(skb, head) + READ(skb, end);

	return BPF_CORE_READ((struct skb_shared_info *)end, gso_segs);
}

/* A packet that wasn't known before. NULL is counted. */
static __always_inline struct journey *trip_begin(const bool typed, struct sk_buff *skb,
						  const struct packet *packet)
{
	static const struct journey blank;
	u64 address = (u64)skb;
	struct journey *journey;

	unrefuse(skb);
	make_room_for_trip(cfg.in_flight);
	if (bpf_map_update_elem(&trips, &address, &blank, BPF_ANY)) {
		count_lost(LOST_PACKETS);
		return NULL;
	}
	journey = bpf_map_lookup_elem(&trips, &address);
	if (!journey)
		return NULL;
	journey->event.head.kind = RECORD_TRACE;
	journey->event.flow = packet->flow;
	store_trip(&journey->event.trip, packet);
	if (typed)
		trip_is_born_typed(skb, journey->event.trip.packet);
	else
		trip_is_born_raw(skb, journey->event.trip.packet);
	return journey;
}

/* -- what may become part of another packet */

#define ARRIVALS 65536 /* as many as arrival_place() knows */

/* Data that came in, by ports and sequence number: the last of each place. */
struct arrival {
	u64 skb;
	u32 seq;
	u16 sport;
	u16 dport;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ARRIVALS);
	__type(key, u32);
	__type(value, struct arrival);
} arrivals SEC(".maps");

static __always_inline struct arrival *arrival_at(const struct flow *flow, u32 seq)
{
	u32 mixed = seq ^ ((u32)flow->sport << 16 | flow->dport);
	u32 place = mixed * 2654435761U >> 16; /* Knuth's: 2^32 by the golden ratio */

	return bpf_map_lookup_elem(&arrivals, &place);
}

static __always_inline void remember_arrival(struct sk_buff *skb, const struct packet *packet)
{
	struct arrival *arrival = arrival_at(&packet->flow, packet->seq);

	if (!arrival)
		return;
	arrival->skb = (u64)skb;
	arrival->seq = packet->seq;
	arrival->sport = packet->flow.sport;
	arrival->dport = packet->flow.dport;
}

static __always_inline struct sk_buff *arrived(const struct flow *flow, u32 seq)
{
	struct arrival *arrival = arrival_at(flow, seq);

	if (!arrival || arrival->seq != seq || arrival->sport != flow->sport ||
	    arrival->dport != flow->dport)
		return NULL;
	return (struct sk_buff *)arrival->skb;
}

/* A number for the verifier, which lets no pointer to a socket into a global function. */
static __always_inline u64 address_of(const struct sock *sk)
{
	u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &sk);
	return address;
}

/* -- stages */

static __always_inline struct stage *add_stage(struct journey *journey, u32 at, u64 ts_ns)
{
	u32 number = journey->event.trip.stages;
	struct stage *stage;

	if (number >= CGNET_STAGES) /* of too many the last one is kept: it tells how it ended */
		number = CGNET_STAGES - 1;
	barrier_var(number);
	if (number >= CGNET_STAGES) /* for the verifier */
		return NULL;
	stage = &journey->event.stages[number];
	stage->ts_ns = ts_ns;
	stage->at = at;
	stage->cpu = bpf_get_smp_processor_id();
	journey->event.trip.stages = number + 1;
	return stage;
}

static __always_inline void at_device(const bool typed, struct stage *stage, struct net_device *dev)
{
	struct net *net;

	if (!stage || !dev)
		return;
	net = READ(dev, nd_net.net);
	stage->netns = READ(net, ns.inum);
	READ_ARRAY(stage->dev, dev, name);
}

/* -- what became part of another packet, and whose address is used again before TCP gets to it */

#define MOST_ASIDE 4096

struct aside_key {
	u64 skb;
	u64 seq;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MOST_ASIDE);
	__type(key, struct aside_key);
	__type(value, struct journey);
} aside SEC(".maps");

/* Where a packet is on its way to a socket's queue. */
static __always_inline bool is_received(u32 at)
{
	return at >= STAGE_NETIF_RECEIVE && at <= STAGE_TCP_BACKLOG;
}

static __always_inline bool may_be_merged(const struct journey *journey)
{
	return journey->event.trip.payload && is_received(last_stage(journey));
}

static __always_inline bool set_aside(struct sk_buff *skb, const struct journey *journey)
{
	struct aside_key key = {.skb = (u64)skb, .seq = journey->event.trip.seq};

	if (!bpf_map_update_elem(&aside, &key, journey, BPF_ANY))
		return true;
	if (cfg.count) /* its record would tell that it has no end; sums can't */
		count_lost(LOST_PACKETS);
	return false;
}

#endif
