/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The beginning of a packet's way: where filters look at it, and it is told from others. */
#ifndef CGNET_TRIP_BEGIN_BPF_H
#define CGNET_TRIP_BEGIN_BPF_H

#include "trace/finish.bpf.h"
#include "trace/retransmit.bpf.h"
#include "trace/send_queue.bpf.h"
#include "owner/packet_owner.bpf.h"

#define LATEST_NS 10000000000ULL /* a transmit time before this is none */

/* TCP's own, before there is a full socket, or after. */
static __always_inline bool is_answer(const bool typed, struct sk_buff *skb)
{
	struct sock *sk = READ(skb, sk);

	return sk && !is_full(typed, sk);
}

/* Of functions' programs, which can't look into every ledger: see name_owner(). `at_device`: it has one now. */
static __always_inline struct journey *begin_unnamed(const bool typed, const bool at_device,
						     struct sk_buff *skb, struct packet *packet,
						     struct place *place)
{
	struct journey *journey;

	if (!ends_pass(&packet->flow))
		return NULL;
	if (at_device)
		find_place_at_device(typed, skb, place);
	else
		find_place(typed, skb, NULL, place);
	if (cfg.by_netns && !netns_passes(place->netns, place->cookie))
		return NULL;
	packet->flow.netns = place->netns;
	journey = trip_begin(typed, skb, packet);
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
						  struct packet *packet)
{
	struct place place;
	struct journey *journey = begin_unnamed(typed, true, skb, packet, &place);

	if (journey)
		name_owner(typed, skb, journey, &place);
	return journey;
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

/* What is known of a packet where its socket sends it. */
static __always_inline void begin_at_socket(const bool typed, struct sk_buff *skb,
					    struct journey *journey)
{
	look_for_retransmit(typed, skb, journey);
	stages_of_queue(typed, skb, journey);
	stage_of_tcp(typed, skb, journey, bpf_ktime_get_ns());
}

/*
 * The first packet of an answer ends the time that the application had a request for. Where it isn't known when it was
 * written, that time isn't, either.
 */
static __always_inline void look_for_answer(const bool typed, struct sk_buff *skb,
					    struct journey *journey)
{
	struct trip *trip = &journey->event.trip;
	struct sock *sk = READ(skb, sk);
	struct ledger_entry *entry;
	u64 read, written = 0;

	if (trip->role != ROLE_SERVER || !trip->payload || trip->retransmitted || !sk ||
	    !is_full(typed, sk))
		return;
	entry = ledger_find(typed, sk);
	if (!entry || !entry->private.read_ns)
		return;
	read = entry->private.read_ns;
	entry->private.read_ns = 0;
	if (journey->event.stages[0].at == STAGE_APP_WRITE)
		written = journey->event.stages[0].ts_ns;
	else if (runs_for_user(typed, sk))
		written = journey->sent_ns;
	if (written > read)
		trip->answer_ns = written - read;
}

/* Not inlined: the callers' frames are full. */
static __noinline int begin_at_socket_raw(struct sk_buff *skb, struct journey *journey)
{
	begin_at_socket(false, skb, journey);
	return 0;
}

static __always_inline int at_socket(const bool typed, struct sk_buff *skb, struct journey *journey)
{
	if (!journey->event.trip.stages)
		begin_at_socket(typed, skb, journey);
	look_for_answer(typed, skb, journey);
	return 0;
}

static __noinline int at_socket_typed(struct sk_buff *skb, struct journey *journey)
{
	return at_socket(true, skb, journey);
}

static __noinline int at_socket_raw(struct sk_buff *skb, struct journey *journey)
{
	return at_socket(false, skb, journey);
}

static __always_inline int name_at_device(const bool typed, struct sk_buff *skb,
					  struct journey *journey)
{
	struct place place;

	find_place_at_device(typed, skb, &place);
	name_owner(typed, skb, journey, &place);
	return 0;
}

static __noinline int name_at_device_typed(struct sk_buff *skb, struct journey *journey)
{
	return name_at_device(true, skb, journey);
}

static __noinline int name_at_device_raw(struct sk_buff *skb, struct journey *journey)
{
	return name_at_device(false, skb, journey);
}

/* A packet that its socket has just sent, or whose owner no program before could tell. */
static __always_inline void at_first_device(const bool typed, struct sk_buff *skb,
					    struct journey *journey)
{
	if (!journey->unnamed && (journey->event.trip.stages || !READ(skb, sk)))
		return;
	if (journey->unnamed && typed)
		name_at_device_typed(skb, journey);
	else if (journey->unnamed)
		name_at_device_raw(skb, journey);
	if (typed)
		at_socket_typed(skb, journey);
	else
		at_socket_raw(skb, journey);
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
