/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Detection of retransmitted data, and of the packet that carried it before. */
#ifndef CGNET_TRACE_RETRANSMIT_BPF_H
#define CGNET_TRACE_RETRANSMIT_BPF_H

#include "trace/in_flight.bpf.h"

/* include/net/tcp.h */
#define TCPHDR_FIN 0x01
#define TCPHDR_SYN 0x02
#define TCPHDR_RST 0x04

#define SENT_SETS 8192
#define SENT_WAYS 4  /* a power of two */
#define SENT_SPAN 10 /* log2 of the sequence numbers per set */
/* Kernels without a ring buffer verify each iteration: see trace/receive.bpf.h. */
#define SENT_BACK_IN_PERF_BUFFERS 8
#define SENT_BACK 64 /* sets that a packet may span: 64 KiB */

/*
 * Sent packet. The key in the first two fields is mixed with the other fields, so that concurrent writes of
 * two CPUs match no packet: Robert Hyatt and Tim Mann, A lock-less transposition table (2002).
 */
struct sent {
	u64 sock;
	u64 range; /* sequence numbers: the first, and in the lower half the end */
	u64 packet;
	u64 ts_ns; /* TCP's time stamp; 0: none */
};

struct sent_set {
	struct sent ways[SENT_WAYS];
};

/*
 * Set-associative cache of sent packets, by socket and sequence number. Consecutive data has consecutive
 * sets: a search backwards finds the large packet of which TCP retransmits a piece.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SENT_SETS);
	__type(key, u32);
	__type(value, struct sent_set);
} sent_before SEC(".maps");

static __always_inline u32 sent_set_of(u64 sk, u32 seq)
{
	return ((u32)(sk >> 6) * 2654435761U >> 16) + (seq >> SENT_SPAN);
}

static __always_inline bool has_sent(const struct sent *sent, u64 sk, u32 seq)
{
	u64 mix = sent->packet ^ sent->ts_ns, range = sent->range ^ mix;
	u32 first = range >> 32;

	return (sent->sock ^ mix) == sk && seq - first < (u32)range - first;
}

/* Find the last packet with a sequence number: its slot plus 1; 0: unknown. Global function: verified once. */
__noinline int find_sent(u64 sk, u32 seq)
{
	u32 begin = sent_set_of(sk, seq);

	for (u32 i = 0; i < (uses_perf_buffer() ? SENT_BACK_IN_PERF_BUFFERS : SENT_BACK); i++) {
		u32 at = (begin - i) % SENT_SETS;
		struct sent_set *set = bpf_map_lookup_elem(&sent_before, &at);

		if (!set)
			break;
		for (u32 way = 0; way < SENT_WAYS; way++) {
			if (has_sent(&set->ways[way], sk, seq))
				return at * SENT_WAYS + way + 1;
		}
	}
	return 0;
}

static __always_inline void link_to_first(struct in_flight_packet *in_flight, u64 sk)
{
	struct packet_trace *trace = &in_flight->event.trace;
	u32 found = find_sent(sk, trace->seq), at = (found - 1) / SENT_WAYS;
	struct sent_set *set = found ? bpf_map_lookup_elem(&sent_before, &at) : NULL;
	const struct sent *before;

	if (!set)
		return;
	before = &set->ways[(found - 1) & (SENT_WAYS - 1)];
	trace->retrans_of = before->packet;
	if (before->ts_ns && in_flight->sent_ns > before->ts_ns)
		trace->retrans_ns = in_flight->sent_ns - before->ts_ns;
}

static __always_inline void note_sent(const struct in_flight_packet *in_flight, u64 sk)
{
	const struct packet_trace *trace = &in_flight->event.trace;
	u64 mix = trace->packet ^ in_flight->sent_ns;
	u32 at = sent_set_of(sk, trace->seq) % SENT_SETS;
	u32 behind = trace->seq + (trace->payload ?: 1); /* SYN and FIN take a number, too */
	struct sent_set *set = bpf_map_lookup_elem(&sent_before, &at);

	if (!set)
		return;
	for (u32 i = SENT_WAYS - 1; i > 0; i--)
		set->ways[i] = set->ways[i - 1];
	set->ways[0].packet = trace->packet;
	set->ways[0].ts_ns = in_flight->sent_ns;
	set->ways[0].sock = sk ^ mix;
	set->ways[0].range = ((u64)trace->seq << 32 | behind) ^ mix;
}

/* Each SYN-ACK is built anew; its request has the time of the first one. */
static __always_inline bool is_synack_again(struct sock *sk,
					    const struct in_flight_packet *in_flight)
{
	u64 first = BPF_CORE_READ((struct tcp_request_sock *)sk, snt_synack);

	return first && in_flight->sent_ns / 1000 > first;
}

/*
 * TCP advances snd_nxt past data after it first sent the data: a packet that begins before snd_nxt is a
 * retransmission. A packet that waited for a neighbour's address gets here after that; TCP's clock for the
 * socket has advanced by then, or the socket has never retransmitted.
 */
static __always_inline bool is_sent_before(struct sock *sk,
					   const struct in_flight_packet *in_flight)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk; /* helpers do not take a packet's socket */

	return (s32)(in_flight->event.trace.seq - BPF_CORE_READ(tp, snd_nxt)) < 0 &&
	       BPF_CORE_READ(tp, total_retrans) &&
	       in_flight->sent_ns >= BPF_CORE_READ(tp, tcp_wstamp_ns);
}

static __always_inline void look_for_retransmit(struct sk_buff *skb,
						struct in_flight_packet *in_flight)
{
	struct packet_trace *trace = &in_flight->event.trace;
	struct sock *sk = READ(skb, sk);
	u8 state;
	u64 address;

	if (!sk || (!trace->payload && !(trace->tcp_flags & (TCPHDR_SYN | TCPHDR_FIN))))
		return;
	state = READ(sk, __sk_common.skc_state);
	address = address_of(sk);
	if (state == TCP_NEW_SYN_RECV)
		trace->retransmitted = is_synack_again(sk, in_flight);
	else if (is_full(sk))
		trace->retransmitted = is_sent_before(sk, in_flight);
	if (trace->retransmitted)
		link_to_first(in_flight, address);
	note_sent(in_flight, address);
}

#endif
