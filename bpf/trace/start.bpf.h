/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Start of a packet: apply the filters, and distinguish it from other packets at its address. */
#ifndef CGNET_TRACE_START_BPF_H
#define CGNET_TRACE_START_BPF_H

#include "trace/finish.bpf.h"
#include "trace/retransmit.bpf.h"
#include "trace/send_queue.bpf.h"
#include "owner/packet_owner.bpf.h"
#include "peer/packet_end.bpf.h"

CONFIG(filter_config);

#define LATEST_NS 10000000000ULL /* an earlier transmit time is invalid */

/* Whether TCP itself sent the packet, before a full socket exists, or after. */
static __always_inline bool is_answer(struct sk_buff *skb)
{
	struct sock *sk = READ(skb, sk);

	return sk && !is_full(sk);
}

/* For programs at functions, without access to every ledger: see name_owner(). `at_device`: it has a device. */
static __always_inline struct in_flight_packet *
begin_unnamed(const bool at_device, struct sk_buff *skb, struct packet *packet, struct place *place)
{
	struct in_flight_packet *in_flight;

	if (!ends_pass(&packet->flow))
		return NULL;
	if (at_device)
		find_place_at_device(skb, place);
	else
		find_place(skb, NULL, place);
	if (filter_config.by_netns && !netns_passes(place->netns, place->cookie))
		return NULL;
	packet->flow.netns = place->netns;
	in_flight = in_flight_start(skb, packet);
	if (in_flight) {
		in_flight->sent_ns = READ(skb, tstamp);
		in_flight->event.trace.segs = segments_of(skb);
		in_flight->unnamed = 1;
	}
	return in_flight;
}

/* The owner of a packet that its socket sends is its sender, not its receiver. */
static __always_inline void name_sender(struct sk_buff *skb, struct in_flight_packet *in_flight,
					const struct place *place)
{
	in_flight->unnamed = 0;
	if (!place->sk && !is_answer(skb))
		return;
	in_flight->event.trace.sent = 1;
	in_flight->event.owner = in_flight->receiver.owner;
	in_flight->wanted_sender = in_flight->receiver.wanted;
	__builtin_memset(&in_flight->receiver, 0, sizeof(in_flight->receiver));
}

static __always_inline void name_owner(struct sk_buff *skb, struct in_flight_packet *in_flight,
				       const struct place *place)
{
	in_flight->event.trace.role =
		whose_packet(place, &in_flight->event.flow, &in_flight->receiver);
	if (place->sk)
		end_of_packet(place->sk, place->tcp_state, place->sent, &in_flight->event.end);
	name_sender(skb, in_flight, place);
}

static __always_inline void name_here(struct sk_buff *skb, struct in_flight_packet *in_flight)
{
	struct place place;

	find_place(skb, NULL, &place);
	name_owner(skb, in_flight, &place);
}

static __always_inline struct in_flight_packet *begin_here(struct sk_buff *skb,
							   struct packet *packet)
{
	struct place place;
	struct in_flight_packet *in_flight = begin_unnamed(true, skb, packet, &place);

	if (in_flight)
		name_owner(skb, in_flight, &place);
	return in_flight;
}

/* TCP records when it sends a packet: this stage is free. */
static __always_inline void stage_of_tcp(struct sk_buff *skb, struct in_flight_packet *in_flight,
					 u64 now)
{
	u64 sent = READ(skb, tstamp);
	struct stage *stage;

	if (sent >= now || now - sent > LATEST_NS)
		return;
	stage = add_stage(in_flight, STAGE_TCP_TRANSMIT, sent);
	if (stage)
		stage->netns = in_flight->event.flow.netns;
}

/* Add the facts that are available where the socket sends the packet. */
static __always_inline void begin_at_socket(struct sk_buff *skb, struct in_flight_packet *in_flight)
{
	look_for_retransmit(skb, in_flight);
	stages_of_queue(skb, in_flight);
	stage_of_tcp(skb, in_flight, bpf_ktime_get_ns());
}

/*
 * The first packet of an answer ends the time that the application had a request for. If the write time is
 * unknown, so is that time.
 */
static __always_inline void look_for_answer(struct sk_buff *skb, struct in_flight_packet *in_flight)
{
	struct packet_trace *trace = &in_flight->event.trace;
	struct sock *sk = READ(skb, sk);
	struct ledger_entry *entry;
	u64 read, written = 0;

	if (trace->role != ROLE_SERVER || !trace->payload || trace->retransmitted || !sk ||
	    !is_full(sk))
		return;
	entry = ledger_find(TYPED, sk);
	if (!entry || !entry->private.read_ns)
		return;
	read = entry->private.read_ns;
	entry->private.read_ns = 0;
	if (in_flight->event.stages[0].at == STAGE_APP_WRITE)
		written = in_flight->event.stages[0].ts_ns;
	else if (runs_for_user(sk))
		written = in_flight->sent_ns;
	if (written > read)
		trace->answer_ns = written - read;
}

/* Not inlined, as the next one: the callers' stack frames are full. */
static __noinline int at_socket(struct sk_buff *skb, struct in_flight_packet *in_flight)
{
	if (!in_flight->event.trace.stages)
		begin_at_socket(skb, in_flight);
	look_for_answer(skb, in_flight);
	return 0;
}

static __noinline int name_at_device(struct sk_buff *skb, struct in_flight_packet *in_flight)
{
	struct place place;

	find_place_at_device(skb, &place);
	name_owner(skb, in_flight, &place);
	return 0;
}

/* Handle a packet that its socket has just sent, or whose owner no earlier program could determine. */
static __always_inline void at_first_device(struct sk_buff *skb, struct in_flight_packet *in_flight)
{
	if (!in_flight->unnamed && (in_flight->event.trace.stages || !READ(skb, sk)))
		return;
	if (in_flight->unnamed)
		name_at_device(skb, in_flight);
	at_socket(skb, in_flight);
}

/*
 * TCP retransmits its copy of a packet at the same address, with a new time stamp; a packet that passes
 * several devices, such as a bridge and its port, keeps its time stamp.
 */
static __always_inline bool is_sent_again(struct sk_buff *skb,
					  const struct in_flight_packet *in_flight)
{
	u64 sent = READ(skb, tstamp);

	return sent && READ(skb, sk) && sent != in_flight->sent_ns && sent < bpf_ktime_get_ns();
}

/* Whether the namespace of a packet's device passes the filters, without reading the packet's headers. */
static __always_inline bool device_passes(struct sk_buff *skb)
{
	struct net_device *dev = READ(skb, dev);
	struct net *net = dev ? READ(dev, nd_net.net) : NULL;

	return !net || netns_passes(READ(net, ns.inum), netns_cookie(TYPED, net));
}

/* Get the entry of a packet that is in flight, or starts at this stage. */
static __always_inline struct in_flight_packet *in_flight_get_or_start(struct sk_buff *skb, u32 at,
								       struct packet *packet)
{
	bool is_receipt = at == STAGE_NETIF_RECEIVE;
	struct in_flight_packet *in_flight;
	bool is_tcp;

	if (at == STAGE_DEV_QUEUE && is_rejected(skb) && is_of_refused_sender(skb)) {
		refuse(skb, false);
		return NULL;
	}
	if (at != STAGE_DEV_QUEUE && at != STAGE_GRO && stays_refused(skb, is_receipt))
		return NULL;
	in_flight = in_flight_find(skb);
	is_tcp = (in_flight || !filter_config.by_netns || device_passes(skb)) &&
		 read_packet(skb, packet);
	if (in_flight) {
		if (is_tcp && is_same_packet(in_flight, packet) && !is_sent_again(skb, in_flight))
			return in_flight;
		was_missed(skb, in_flight);
	}
	in_flight = is_tcp ? begin_here(skb, packet) : NULL;
	if (in_flight)
		return in_flight;
	refuse(skb, is_receipt);
	if (at == STAGE_DEV_QUEUE && is_tcp && !ends_pass(&packet->flow))
		refuse_sender(skb);
	return NULL;
}

#endif
