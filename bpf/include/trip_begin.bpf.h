/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The beginning of a packet's way: where filters look at it, and it is told from others. */
#ifndef CGNET_TRIP_BEGIN_BPF_H
#define CGNET_TRIP_BEGIN_BPF_H

#include "trip_end.bpf.h"
#include "whose_packet.bpf.h"

#define LATEST_NS 10000000000ULL /* a transmit time before this is none */

#define SENT_SETS 8192
#define SENT_WAYS 4 /* a power of two */

/*
 * A packet that was sent. The first two have its key mixed with the rest, so that what two CPUs write at once fits no
 * packet: Robert Hyatt and Tim Mann, A lock-less transposition table (2002).
 */
struct sent {
	u64 head;
	u64 numbers;
	u64 packet;
	u64 ts_ns; /* of TCP's stamp; 0: none */
};

struct sent_set {
	struct sent ways[SENT_WAYS];
};

/*
 * Which packet had the same data in the same place: a retransmission is a copy of the same skb. What TCP may send
 * again it keeps, and nobody else has its place then: so places are in sets by their addresses, of
 * which those that are used again and again are warm.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SENT_SETS);
	__type(key, u32);
	__type(value, struct sent_set);
} sent_before SEC(".maps");

/* TCP's own, before there is a full socket, or after. */
static __always_inline bool is_answer(const bool typed, struct sk_buff *skb)
{
	struct sock *sk = READ(skb, sk);

	return sk && !is_full(typed, sk);
}

/* Of functions' programs, which can't look into every ledger: see name_owner(). `at_device`: it has one now. */
static __always_inline struct journey *begin_unnamed(const bool typed, const bool at_device,
						     struct sk_buff *skb,
						     const struct packet *packet,
						     struct place *place)
{
	struct packet named = *packet;
	struct journey *journey;

	if (!ends_pass(&packet->flow))
		return NULL;
	if (at_device)
		find_place_at_device(typed, skb, place);
	else
		find_place(typed, skb, NULL, place);
	if (cfg.by_netns && !netns_passes(place->netns, place->cookie))
		return NULL;
	named.flow.netns = place->netns;
	journey = trip_begin(typed, skb, &named);
	if (journey) {
		journey->sent_ns = READ(skb, tstamp);
		journey->event.trip.segs = segments_of(typed, skb);
		journey->unnamed = 1;
	}
	return journey;
}

static __always_inline void name_owner(const bool typed, struct sk_buff *skb,
				       struct journey *journey, const struct place *place)
{
	journey->unnamed = 0;
	journey->event.trip.role =
		whose_packet(typed, place, &journey->event.flow, &journey->receiver);
	if (!place->sk && !is_answer(typed, skb))
		return;
	journey->event.trip.sent = 1;
	journey->event.owner = journey->receiver.owner;
	journey->wanted_sender = journey->receiver.wanted;
	__builtin_memset(&journey->receiver, 0, sizeof(journey->receiver));
}

static __always_inline void name_here(const bool typed, struct sk_buff *skb,
				      struct journey *journey)
{
	struct place place;

	find_place(typed, skb, NULL, &place);
	name_owner(typed, skb, journey, &place);
}

static __always_inline struct journey *begin_here(const bool typed, struct sk_buff *skb,
						  const struct packet *packet)
{
	struct place place;
	struct journey *journey = begin_unnamed(typed, true, skb, packet, &place);

	if (journey)
		name_owner(typed, skb, journey, &place);
	return journey;
}

static __always_inline bool is_sent(const struct sent *sent, u64 head, u64 numbers)
{
	u64 mix = sent->packet ^ sent->ts_ns;

	return (sent->head ^ mix) == head && (sent->numbers ^ mix) == numbers;
}

/* The packet's place: where it was before, else the first one's, when all have moved on by one. */
static __always_inline void note_sent(struct sent_set *set, u32 way, u64 head, u64 numbers,
				      const struct journey *journey)
{
	u64 packet = journey->event.trip.packet, mix = packet ^ journey->sent_ns;

	for (u32 i = SENT_WAYS - 1; i > 0; i--) {
		if (i <= way)
			set->ways[i] = set->ways[i - 1];
	}
	set->ways[0].packet = packet;
	set->ways[0].ts_ns = journey->sent_ns;
	set->ways[0].head = head ^ mix;
	set->ways[0].numbers = numbers ^ mix;
}

static __always_inline void link_to_first(const bool typed, struct sk_buff *skb,
					  struct journey *journey)
{
	struct trip *trip = &journey->event.trip;
	const struct flow *flow = &journey->event.flow;
	u64 numbers = (u64)trip->seq << 32 | (u32)flow->sport << 16 | flow->dport;
	u64 head = 0; /* a number, where a load gives verifiers a pointer */
	u32 at, way = SENT_WAYS - 1;
	struct sent_set *set;

	if (!trip->payload && !(trip->tcp_flags & 3)) /* it is never repeated */
		return;
	bpf_core_read(&head, sizeof(head), &skb->head);
	at = (u32)(head >> 6) * 2654435761U >> 19; /* as many as there are sets */
	set = bpf_map_lookup_elem(&sent_before, &at);
	if (!set)
		return;
	for (u32 i = 0; i < SENT_WAYS; i++) {
		const struct sent *before = &set->ways[i];

		if (!is_sent(before, head, numbers))
			continue;
		trip->retrans_of = before->packet;
		if (before->ts_ns && journey->sent_ns > before->ts_ns)
			trip->retrans_ns = journey->sent_ns - before->ts_ns;
		way = i;
		break;
	}
	note_sent(set, way, head, numbers, journey);
}

/* TCP noted when it sent a packet; that is a stage for free. */
static __always_inline void stage_of_tcp(const bool typed, struct sk_buff *skb,
					 struct journey *journey, u64 now)
{
	u64 sent = READ(skb, tstamp);
	struct stage *stage;

	if (sent >= now || now - sent > LATEST_NS)
		return;
	stage = add_stage(journey, STAGE_TCP_TRANSMIT, sent);
	if (stage)
		stage->netns = journey->event.flow.netns;
}

/*
 * TCP sends its copy of a packet again, at the same address, with a time stamp of its own; a packet that goes
 * through several devices, such as a bridge and its port, keeps it.
 */
static __always_inline bool is_sent_again(const bool typed, struct sk_buff *skb,
					  const struct journey *journey)
{
	u64 sent = READ(skb, tstamp);

	return sent && READ(skb, sk) && sent != journey->sent_ns && sent < bpf_ktime_get_ns();
}

/* Without a look at its headers: whether its device's namespace lets a packet through. */
static __always_inline bool device_passes(const bool typed, struct sk_buff *skb)
{
	struct net_device *dev = READ(skb, dev);
	struct net *net = dev ? READ(dev, nd_net.net) : NULL;

	return !net || netns_passes(READ(net, ns.inum), netns_cookie(typed, net));
}

/* The trip of a packet that may be on its way already, or begins here, at this stage. */
static __always_inline struct journey *trip_of(const bool typed, struct sk_buff *skb, u32 at,
					       struct packet *packet)
{
	bool is_receipt = at == STAGE_NETIF_RECEIVE;
	struct journey *journey;
	bool is_tcp;

	if (at == STAGE_DEV_QUEUE && is_refused(skb) && is_of_refused_sender(typed, skb)) {
		refuse(typed, skb, false);
		return NULL;
	}
	if (at != STAGE_DEV_QUEUE && at != STAGE_GRO && stays_refused(typed, skb, is_receipt))
		return NULL;
	journey = trip_find(skb);
	is_tcp = (journey || !cfg.by_netns || device_passes(typed, skb)) &&
		 read_packet(typed, skb, packet);
	if (journey) {
		if (is_tcp && is_same_packet(journey, packet) &&
		    !is_sent_again(typed, skb, journey))
			return journey;
		was_missed(typed, skb, journey);
	}
	journey = is_tcp ? begin_here(typed, skb, packet) : NULL;
	if (journey)
		return journey;
	refuse(typed, skb, is_receipt);
	if (at == STAGE_DEV_QUEUE && is_tcp && !ends_pass(&packet->flow))
		refuse_sender(typed, skb);
	return NULL;
}

#endif
