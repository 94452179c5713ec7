// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Packet traces through the stack. Each stage is a tracepoint; the programs create a packet's record at its
 * end, and only if it is selected: fast packets cost no record.
 */
#include "base/flow.bpf.h"
#include "trace/private.bpf.h"
#include "owner/all_sockets.bpf.h"
#include "base/location.bpf.h"
#include "drop/class.bpf.h"
#include "trace/start.bpf.h"
#include "trace/receive.bpf.h"
#include "filter/cgroup_events.bpf.h"

#define DEQUEUED_AT_ONCE 16

/* -- stages */

static __always_inline int on_dev_queue(struct sk_buff *skb)
{
	struct packet packet = {};
	struct in_flight_packet *in_flight = in_flight_get_or_start(skb, STAGE_DEV_QUEUE, &packet);
	u64 now;

	if (!in_flight)
		return 0;
	now = bpf_ktime_get_ns();
	at_first_device(skb, in_flight);
	at_device(add_stage(in_flight, STAGE_DEV_QUEUE, now), READ(skb, dev));
	return 0;
}

/* Use only the address: the packet may be freed, if it was segmented for a small device. */
static __always_inline int on_known(struct sk_buff *skb, u32 at, struct net_device *dev)
{
	struct in_flight_packet *in_flight = in_flight_find(skb);

	if (in_flight)
		at_device(add_stage(in_flight, at, bpf_ktime_get_ns()), dev);
	return 0;
}

/* A segment of a larger packet starts here, with the time at which TCP sent the whole. */
static __always_inline int on_piece(struct sk_buff *skb, u32 at, struct net_device *dev)
{
	struct packet packet = {};
	struct in_flight_packet *in_flight = in_flight_get_or_start(skb, at, &packet);
	u64 now;

	if (!in_flight)
		return 0;
	now = bpf_ktime_get_ns();
	if (!in_flight->event.trace.stages && READ(skb, sk))
		stage_of_tcp(skb, in_flight, now);
	at_device(add_stage(in_flight, at, now), dev);
	return 0;
}

/* A qdisc may dequeue a list of packets: segments made before they were enqueued start at a later stage. */
static __always_inline int on_dequeue(struct sk_buff *skb, struct net_device *dev)
{
	u64 next = (u64)skb;

	if (!skb)
		return 0;
	on_piece(skb, STAGE_QDISC_DEQUEUE, dev);
	for (u32 i = 1; i < DEQUEUED_AT_ONCE; i++) {
		struct sk_buff *other =
			(struct sk_buff *)BPF_CORE_READ((struct sk_buff *)next, next);

		if (!other)
			break;
		on_known(other, STAGE_QDISC_DEQUEUE, dev);
		next = (u64)other;
	}
	return 0;
}

static __always_inline int on_receive(struct sk_buff *skb, u32 at)
{
	struct packet packet = {};
	struct in_flight_packet *in_flight = in_flight_get_or_start(skb, at, &packet);

	if (!in_flight)
		return 0;
	at_device(add_stage(in_flight, at, bpf_ktime_get_ns()), READ(skb, dev));
	if (at == STAGE_NETIF_RECEIVE && packet.payload)
		remember_arrival(skb, &packet);
	return 0;
}

/* -- the end */

static __always_inline bool is_at_end(struct sk_buff *skb, const struct in_flight_packet *in_flight)
{
	struct packet packet = {};

	return read_packet(skb, &packet) && in_flight->event.trace.seq == packet.seq;
}

/* Entry of the packet, unless it is that of an earlier packet at the address whose end was missed. */
static __always_inline struct in_flight_packet *in_flight_at_end(struct sk_buff *skb)
{
	struct in_flight_packet *in_flight = in_flight_find(skb);

	if (!in_flight || is_at_end(skb, in_flight))
		return in_flight;
	was_missed(skb, in_flight);
	return NULL;
}

static __always_inline int on_free(struct sk_buff *skb)
{
	struct in_flight_packet *in_flight = in_flight_at_end(skb);

	if (!in_flight) {
		refused_is_gone(skb);
		return 0;
	}
	if (unlikely(in_flight->unnamed))
		name_here(skb, in_flight);
	add_stage(in_flight, STAGE_CONSUME, bpf_ktime_get_ns());
	in_flight_ends(in_flight, TRACE_CONSUMED);
	in_flight_forget(skb);
	return 0;
}

/* Whether ordinary traffic causes this drop, by the same rule as in `cgnet drop`. */
static __always_inline bool is_no_fault(const struct packet_trace *trace, const struct place *place,
					struct sock *rx_sk)
{
	struct drop drop = {
		.location = trace->location,
		.reason = trace->reason,
		.payload = trace->payload,
		.tcp_flags = trace->tcp_flags,
		.tcp_state = place->tcp_state,
	};
	struct packet packet = {
		.seq = trace->seq, .payload = trace->payload, .flags = trace->tcp_flags};

	if (rx_sk && drop.tcp_state == TCP_TIME_WAIT)
		drop.new_data = is_new_data(rx_sk, &packet);
	return is_benign(&drop);
}

static __always_inline void drop_at(struct sk_buff *skb, struct in_flight_packet *in_flight,
				    u64 location, u32 reason, struct sock *rx_sk)
{
	u64 now = bpf_ktime_get_ns();
	struct place place;
	bool no_fault;

	in_flight->event.trace.location = location;
	in_flight->event.trace.reason = reason;
	find_place(skb, rx_sk, &place);
	if (place.sk && !in_flight->event.end.known)
		end_of_packet(place.sk, place.tcp_state, place.sent, &in_flight->event.end);
	if (in_flight->unnamed || (!in_flight->event.trace.sent && !in_flight->waits))
		in_flight->event.trace.role =
			whose_packet(&place, &in_flight->event.flow, &in_flight->receiver);
	if (in_flight->unnamed)
		name_sender(skb, in_flight, &place);
	leave_hook(in_flight, VERDICT_DROP, now);
	no_fault = is_no_fault(&in_flight->event.trace, &place, rx_sk);
	at_device(add_stage(in_flight, no_fault ? STAGE_CONSUME : STAGE_DROP, now),
		  place.ifindex ? READ(skb, dev) : NULL);
	in_flight_ends(in_flight, no_fault ? TRACE_CONSUMED : TRACE_DROPPED);
}

/*
 * The packet that TCP queued last on this CPU, and drops at once, is in flight again: the verifier walks the
 * drop once, not for each map that an entry may be in.
 */
static __always_inline struct in_flight_packet *take_back_last(struct sk_buff *skb)
{
	struct last_one *last = bpf_map_lookup_elem(&last_one, &(u32){0});
	struct in_flight_packet *in_flight;
	u64 address = (u64)skb;

	if (!last || last->skb != address)
		return NULL;
	last->skb = 0;
	in_flight = find_waiting(&last->key);
	if (!in_flight || !is_at_end(skb, in_flight))
		return NULL;
	if (bpf_map_update_elem(&packets_in_flight, &address, in_flight, BPF_ANY)) {
		count_lost(LOST_PACKETS);
		return NULL;
	}
	waits_no_more(&last->key);
	count_in_flight(TRACKED_IN_FLIGHT, 1);
	return bpf_map_lookup_elem(&packets_in_flight, &address);
}

static __always_inline int on_drop(struct sk_buff *skb, u64 location, u32 reason,
				   struct sock *rx_sk)
{
	struct in_flight_packet *in_flight = in_flight_at_end(skb);

	if (!in_flight) {
		refused_is_gone(skb);
		in_flight = take_back_last(skb);
	}
	if (!in_flight)
		return 0;
	drop_at(skb, in_flight, location, reason, rx_sk);
	in_flight_forget(skb);
	return 0;
}

/* -- hooks */

#define PROGRAM_NAMED(name, hook, arguments, call) \
	TRACEPOINT_PROGRAM(trace_##name, hook, WITH(arguments), WITH_PERF_FLUSH(ctx, call))
#define PROGRAM(name, arguments, call) PROGRAM_NAMED(name, name, WITH(arguments), call)

PROGRAM(net_dev_queue, WITH(struct sk_buff *skb), on_dev_queue(skb))
PROGRAM(qdisc_enqueue, WITH(void *qdisc, struct netdev_queue *txq, struct sk_buff *skb),
	on_known(skb, STAGE_QDISC_ENQUEUE, READ(txq, dev)))
PROGRAM(qdisc_dequeue,
	WITH(void *qdisc, struct netdev_queue *txq, int packets, struct sk_buff *skb),
	on_dequeue(skb, READ(txq, dev)))
PROGRAM(net_dev_start_xmit, WITH(struct sk_buff *skb, struct net_device *dev),
	on_piece(skb, STAGE_DEV_XMIT, dev))
PROGRAM(netif_rx_entry, WITH(struct sk_buff *skb), on_receive(skb, STAGE_NETIF_RX))
PROGRAM(napi_gro_receive_entry, WITH(struct sk_buff *skb), on_receive(skb, STAGE_GRO))
PROGRAM(netif_receive_skb, WITH(struct sk_buff *skb), on_receive(skb, STAGE_NETIF_RECEIVE))
/*
 * Two programs, see base/program.bpf.h: TCP processes its backlog in process context, where a softirq may
 * interrupt for another socket. The second program finds no entry if the first one did the work.
 */
PROGRAM_NAMED(tcp_probe, tcp_probe, WITH(struct sock *sk, struct sk_buff *skb), on_tcp(sk, skb))
PROGRAM_NAMED(tcp_probe_again, tcp_probe, WITH(struct sock *sk, struct sk_buff *skb),
	      on_tcp(sk, skb))
PROGRAM(tcp_rcv_space_adjust, WITH(struct sock *sk), on_app(ctx, sk))
PROGRAM(sock_send_length, WITH(struct sock *sk, int result), on_written(sk, result))
PROGRAM(consume_skb, WITH(struct sk_buff *skb), on_free(skb))
PROGRAM(kfree_skb, WITH(struct sk_buff *skb, void *location),
	on_drop(skb, caller_of_free(ctx, (u64)location), reason_in(ctx), rx_sk_in(ctx)))
PROGRAM(inet_sock_set_state, WITH(struct sock *sk, int oldstate, int newstate),
	is_tcp(sk) ? (ledger_on_state(sk, oldstate, newstate), 0) : 0)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
