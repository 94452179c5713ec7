/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets in flight, by the address of their skb.
 *
 * The kernel reuses addresses at once, so a packet is identified by its address and its TCP numbers: the
 * sequence number and the payload length, which bridges, routers and NAT preserve. Only one context handles
 * an skb at a time, and thus its entry.
 */
#ifndef CGNET_TRACE_IN_FLIGHT_BPF_H
#define CGNET_TRACE_IN_FLIGHT_BPF_H

#include "trace/private.bpf.h"
#include "base/packet.bpf.h"
#include "trace/reject_cache.bpf.h"
#include "owner/ledger.bpf.h"
#include "trace/eviction.bpf.h"

CROSSES_TO_USER_SPACE(trace_event);
CROSSES_TO_USER_SPACE(in_flight_packet);
CONFIG(count_config);
CONFIG(trace_config);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CGNET_IN_FLIGHT + CGNET_IN_FLIGHT / SPARE);
	__type(key, u64);
	__type(value, struct in_flight_packet);
} packets_in_flight SEC(".maps");

/* Number of packets started on this CPU. */
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

static __always_inline struct in_flight_packet *in_flight_find(struct sk_buff *skb)
{
	struct in_flight_packet *in_flight;
	u64 address = (u64)skb;

	if (is_rejected(skb))
		return NULL;
	in_flight = bpf_map_lookup_elem(&packets_in_flight, &address);
	return in_flight && !is_evicted(in_flight) ? in_flight : NULL;
}

static __always_inline void in_flight_forget(struct sk_buff *skb)
{
	u64 address = (u64)skb;

	if (!bpf_map_delete_elem(&packets_in_flight, &address))
		count_in_flight(TRACKED_IN_FLIGHT, -1);
}

/* Global function: verified once. */
__noinline int evict_if_full_in_flight(u32 most)
{
	evict_if_full(&packets_in_flight, &in_flight_order, &in_flight_evicted, TRACKED_IN_FLIGHT,
		      most);
	return 0;
}

/* Not global: global functions do not take a pointer as a number. */
static __noinline int track_in_flight(struct sk_buff *skb, u64 packet)
{
	struct packet_ref ref = {.key = {(u64)skb}, .packet = packet};

	track(&packets_in_flight, &in_flight_order, &in_flight_evicted, &ref, TRACKED_IN_FLIGHT);
	return 0;
}

static __always_inline u32 last_stage(const struct in_flight_packet *in_flight)
{
	u32 last = in_flight->event.trace.stages - 1;

	barrier_var(last);
	return last < CGNET_STAGES ? in_flight->event.stages[last].at : 0;
}

/* GRO merges several packets into the first one, which grows. */
static __always_inline bool grew_by_gro(const struct in_flight_packet *in_flight,
					const struct packet *packet)
{
	return packet->payload > in_flight->event.trace.payload &&
	       last_stage(in_flight) == STAGE_GRO;
}

static __always_inline bool is_same_packet(struct in_flight_packet *in_flight,
					   const struct packet *packet)
{
	if (in_flight->event.trace.seq != packet->seq)
		return false;
	if (grew_by_gro(in_flight, packet)) {
		in_flight->event.trace.payload = packet->payload;
		in_flight->event.trace.len = packet->len;
	}
	return in_flight->event.trace.payload == packet->payload;
}

static __always_inline void store_packet(struct packet_trace *trace, const struct packet *packet)
{
	trace->packet = next_packet_number();
	trace->seq = packet->seq;
	trace->ack = packet->ack;
	trace->len = packet->len;
	trace->payload = packet->payload;
	trace->tcp_flags = packet->flags;
}

/* Number of packets that an skb becomes on the wire. */
static __always_inline u16 segments_of(struct sk_buff *skb)
{
	unsigned char *end = READ(skb, head) + READ(skb, end);

	return BPF_CORE_READ((struct skb_shared_info *)end, gso_segs);
}

/* Start tracking a packet that is not in flight yet. Failures (NULL) are counted. */
static __always_inline struct in_flight_packet *in_flight_start(struct sk_buff *skb,
								const struct packet *packet)
{
	static const struct in_flight_packet blank;
	u64 address = (u64)skb;
	struct in_flight_packet *in_flight;

	reject_cache_clear(skb);
	evict_if_full_in_flight(trace_config.in_flight);
	if (bpf_map_update_elem(&packets_in_flight, &address, &blank, BPF_ANY)) {
		count_lost(LOST_PACKETS);
		return NULL;
	}
	in_flight = bpf_map_lookup_elem(&packets_in_flight, &address);
	if (!in_flight)
		return NULL;
	in_flight->event.head.kind = RECORD_TRACE;
	in_flight->event.flow = packet->flow;
	store_packet(&in_flight->event.trace, packet);
	track_in_flight(skb, in_flight->event.trace.packet);
	return in_flight;
}

/* -- packets that may be merged into another */

#define ARRIVALS 65536 /* as many as arrival_at() can index */

/* Last data arrival of a slot, by ports and sequence number. */
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

static __always_inline struct arrival *arrival_at(u16 sport, u16 dport, u32 seq)
{
	u32 mixed = seq ^ ((u32)sport << 16 | dport);
	u32 place = mixed * 2654435761U >> 16; /* Knuth's hash: 2^32 / golden ratio */

	return bpf_map_lookup_elem(&arrivals, &place);
}

static __always_inline void remember_arrival(struct sk_buff *skb, const struct packet *packet)
{
	struct arrival *arrival = arrival_at(packet->flow.sport, packet->flow.dport, packet->seq);

	if (!arrival)
		return;
	arrival->skb = (u64)skb;
	arrival->seq = packet->seq;
	arrival->sport = packet->flow.sport;
	arrival->dport = packet->flow.dport;
}

static __always_inline struct sk_buff *arrived(u16 sport, u16 dport, u32 seq)
{
	struct arrival *arrival = arrival_at(sport, dport, seq);

	if (!arrival || arrival->seq != seq || arrival->sport != sport || arrival->dport != dport)
		return NULL;
	return (struct sk_buff *)arrival->skb;
}

/* Address as a number: the verifier lets no pointer to a socket into a global function. */
static __always_inline u64 address_of(const struct sock *sk)
{
	u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &sk);
	return address;
}

/* -- stages */

static __always_inline struct stage *add_stage(struct in_flight_packet *in_flight, u32 at,
					       u64 ts_ns)
{
	u32 number = in_flight->event.trace.stages;
	struct stage *stage;

	if (number >= CGNET_STAGES) /* beyond the limit keep the last stage: it shows the end */
		number = CGNET_STAGES - 1;
	barrier_var(number);
	if (number >= CGNET_STAGES) /* for the verifier */
		return NULL;
	stage = &in_flight->event.stages[number];
	stage->ts_ns = ts_ns;
	stage->at = at;
	stage->cpu = bpf_get_smp_processor_id();
	in_flight->event.trace.stages = number + 1;
	return stage;
}

static __always_inline void at_device(struct stage *stage, struct net_device *dev)
{
	struct net *net;

	if (!stage || !dev)
		return;
	net = READ(dev, nd_net.net);
	stage->netns = READ(net, ns.inum);
	READ_ARRAY(stage->dev, dev, name);
}

/* The packet leaves the hook that it is in, if any. */
static __always_inline void leave_hook(struct in_flight_packet *in_flight, u32 verdict, u64 now)
{
	struct stage *stage;

	if (!in_flight->hook)
		return;
	stage = add_stage(in_flight, in_flight->hook, now);
	in_flight->hook = 0;
	if (!stage)
		return;
	stage->netns = in_flight->hook_netns;
	stage->verdict = verdict;
}

/* -- packets merged into another, whose address is reused before TCP processes them */

#define MAX_ASIDE 4096

struct aside_key {
	u64 skb;
	u64 seq;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ASIDE);
	__type(key, struct aside_key);
	__type(value, struct in_flight_packet);
} aside SEC(".maps");

/* Whether a packet is on its way to a socket's queue. */
static __always_inline bool is_received(u32 at)
{
	return at >= STAGE_NETIF_RECEIVE && at <= STAGE_TCP_BACKLOG;
}

static __always_inline bool may_be_merged(const struct in_flight_packet *in_flight)
{
	return in_flight->event.trace.payload && is_received(last_stage(in_flight));
}

static __always_inline bool set_aside(struct sk_buff *skb, const struct in_flight_packet *in_flight)
{
	struct aside_key key = {.skb = (u64)skb, .seq = in_flight->event.trace.seq};

	if (!bpf_map_update_elem(&aside, &key, in_flight, BPF_ANY))
		return true;
	if (count_config.enabled) /* its record would show that it has no end; sums cannot */
		count_lost(LOST_PACKETS);
	return false;
}

#endif
