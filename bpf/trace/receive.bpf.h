/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packet at its receiver's socket: TCP receives it, and the application reads it. The including file attaches
 * to both; its struct ledger_private has `first` and `behind`, the numbers of the socket's waiting packets.
 */
#ifndef CGNET_TRACE_RECEIVE_BPF_H
#define CGNET_TRACE_RECEIVE_BPF_H

#include "trace/finish.bpf.h"
#include "trace/hole.bpf.h"
#include "trace/retransmit.bpf.h"
#include "trace/waiting.bpf.h"
#include "owner/all_sockets.bpf.h"

CONFIG(count_config);
CONFIG(trace_config);

/*
 * Limits on the packets that one read may end, as TCP merged them. Kernels without a ring buffer have no
 * global functions, either (Linux kernel commit 51c39bb1d5d1 "bpf: Introduce function-by-function
 * verification", in v5.6): they verify each iteration. The next read ends the remaining packets.
 */
#define READ_AT_ONCE 64
#define READ_AT_ONCE_IN_PERF_BUFFERS 8
#define SUMMED_UP_AT_ONCE_BY_PERF 2
#define MERGED_AT_ONCE 32
#define MERGED_AT_ONCE_BY_PERF 8

/* Flags by socket hash: whether a packet ever waited at the socket. They save most reads a ledger lookup. */
#define WAITED 4096

struct waited {
	u8 places[WAITED];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct waited);
} waited SEC(".maps");

static __always_inline u8 *waited_at(struct sock *sk)
{
	struct waited *all = bpf_map_lookup_elem(&waited, &(u32){0});

	return all ? &all->places[READ(sk, __sk_common.skc_hash) % WAITED] : NULL;
}

static __always_inline void waits_no_more(const struct waiting_key *key)
{
	if (!bpf_map_delete_elem(&waiting, key))
		count_in_flight(TRACKED_WAITING, -1);
}

__noinline int make_room_to_wait(u32 most)
{
	evict_if_full(&waiting, &waiting_order, &waiting_evicted, TRACKED_WAITING, most);
	return 0;
}

/* Global functions are verified once, not again in each iteration of the calling loop. */
__noinline int waits_now(u64 sk, u64 number, u64 packet)
{
	struct packet_ref ref = {.key = {sk, number}, .packet = packet};

	track(&waiting, &waiting_order, &waiting_evicted, &ref, TRACKED_WAITING);
	return 0;
}

static __always_inline void wait_for_reader(u64 sk, u64 skb, struct ledger_entry *entry,
					    struct in_flight_packet *in_flight)
{
	struct waiting_key key = {.sk = sk, .number = entry->private.behind};
	u64 packet = in_flight->event.trace.packet;
	struct last_one *last = bpf_map_lookup_elem(&last_one, &(u32){0});

	make_room_to_wait(trace_config.in_flight < MAX_WAITING ? trace_config.in_flight
							       : MAX_WAITING);
	in_flight->waits = WAITS;
	if (bpf_map_update_elem(&waiting, &key, in_flight, BPF_ANY)) {
		count_lost(LOST_PACKETS);
		return;
	}
	waits_now(sk, key.number, packet);
	entry->private.behind++;
	if (!last)
		return;
	last->skb = skb;
	last->key = key;
}

/* TCP discards data that the socket already has, with or without a drop reason. */
static __always_inline bool brings_new_data(struct tcp_sock *tp, const struct packet_trace *trace)
{
	return trace->payload && (s32)(trace->seq + trace->payload - READ(tp, rcv_nxt)) > 0;
}

static __always_inline void arrives(u64 sk, struct ledger_entry *entry,
				    struct in_flight_packet *in_flight, u32 netns)
{
	struct stage *stage = add_stage(in_flight, STAGE_TCP_RECEIVE, bpf_ktime_get_ns());

	if (stage)
		stage->netns = netns;
	if (!entry)
		return;
	in_flight->receiver = *holder_of(entry);
	if (!in_flight->event.end.known) {
		in_flight->event.end.known = 1;
		identity_in_life(false, (struct tcp_sock *)sk, entry,
				 &in_flight->event.end.identity);
	}
	if (!in_flight->event.trace.sent)
		in_flight->event.trace.role = entry->role;
}

/* Packets that TCP merged into one, from the second on. */
struct merged {
	u64 sk;
	u32 seq; /* of the next one */
	u32 end_seq;
	u32 netns;
	u16 sport;
	u16 dport;
	u64 out_of_order; /* the first one is */
};

/* Add the next one to those that wait for the application; false if it is the last one, or unknown. */
static __always_inline bool merge_here(struct ledger_entry *entry, struct merged *merged)
{
	struct sk_buff *skb = arrived(merged->sport, merged->dport, merged->seq);
	struct aside_key key = {.skb = (u64)skb, .seq = merged->seq};
	struct in_flight_packet *in_flight = skb ? in_flight_find(skb) : NULL;
	bool is_aside = !in_flight || in_flight->event.trace.seq != merged->seq;

	if (is_aside)
		in_flight = bpf_map_lookup_elem(&aside, &key);
	if (!in_flight)
		return false;
	merged->seq += in_flight->event.trace.payload;
	arrives(merged->sk, entry, in_flight, merged->netns);
	in_flight->event.trace.out_of_order = merged->out_of_order;
	wait_for_reader(merged->sk, (u64)skb, entry, in_flight);
	if (is_aside)
		bpf_map_delete_elem(&aside, &key);
	else
		in_flight_forget(skb);
	return (s32)(merged->end_seq - merged->seq) > 0;
}

#if TYPED
/* A global function, as in_flight_ends(): verified once, and not again in each iteration. */
__noinline int merge_next(struct ledger_entry *entry, struct merged *merged)
{
	return entry && merged && merge_here(entry, merged);
}
#else
static __always_inline int merge_next(struct ledger_entry *entry, struct merged *merged)
{
	return merge_here(entry, merged);
}
#endif

/*
 * While a process has the socket, TCP merges consecutive packets into one (Linux kernel commit 4f693b55c3d2
 * "tcp: implement coalescing on backlog queue", in v5.0). No tracepoint reports it.
 */
static __always_inline void merged_arrive(u64 sk, struct sk_buff *skb, struct ledger_entry *entry,
					  const struct packet_trace *head, u32 netns)
{
	struct merged merged = {
		.sk = sk,
		.seq = head->seq + head->payload,
		.netns = netns,
		.out_of_order = head->out_of_order,
	};
	u32 numbers[2]; /* struct tcp_skb_cb begins with them: seq and end_seq */
	struct packet packet = {};

	bpf_core_read(numbers, sizeof(numbers), &skb->cb);
	merged.end_seq = numbers[1];
	if ((s32)(merged.end_seq - merged.seq) <= 1) /* FIN takes a number, too */
		return;
	if (!read_packet(skb, &packet))
		return;
	merged.sport = packet.flow.sport;
	merged.dport = packet.flow.dport;
	for (u32 i = 0; i < (uses_perf_buffer() ? MERGED_AT_ONCE_BY_PERF : MERGED_AT_ONCE); i++)
		if (!merge_next(entry, &merged))
			break;
}

/* Out-of-order data waits for the missing data; in-order data may be the missing data. */
static __always_inline bool look_for_hole(struct sock *sk, struct tcp_sock *tp,
					  const struct packet_trace *trace)
{
	u32 rcv_nxt = READ(tp, rcv_nxt), ahead = (s32)(trace->seq - rcv_nxt) > 0;

	if (!ahead && READ(tp, out_of_order_queue.rb_node))
		note_fill(address_of(sk), rcv_nxt, trace->seq + trace->payload);
	barrier_var(ahead); /* one path for the verifier, not two */
	return ahead;
}

/*
 * An open connection consumes an acknowledgement or a FIN here, and no tracepoint reports when it frees them.
 * A SYN or a reset, which it may drop, ends where that is reported.
 */
static __always_inline bool ends_at_socket(const struct packet_trace *trace)
{
	return !trace->payload && !(trace->tcp_flags & (TCPHDR_SYN | TCPHDR_RST));
}

static __always_inline int on_tcp(struct sock *sk, struct sk_buff *skb)
{
	struct in_flight_packet *in_flight = in_flight_find(skb);
	struct ledger_entry *entry;
	struct tcp_sock *tp;
	u64 address;
	u32 netns;
	u8 *place;

	if (!in_flight || last_stage(in_flight) == STAGE_TCP_RECEIVE) /* the first program did it */
		return 0;
	tp = tcp_sock_of(sk);
	if (!tp)
		return 0;
	entry = ledger_of(true, sk);
	netns = netns_of(TYPED, sk);
	address = address_of(sk);
	arrives(address, entry, in_flight, netns);
	if (ends_at_socket(&in_flight->event.trace)) {
		in_flight_ends(in_flight, TRACE_CONSUMED);
	} else if (entry && brings_new_data(tp, &in_flight->event.trace)) {
		in_flight->event.trace.out_of_order =
			look_for_hole(sk, tp, &in_flight->event.trace);
		place = waited_at(sk);
		if (place && !*place)
			*place = 1;
		wait_for_reader(address, (u64)skb, entry, in_flight);
		merged_arrive(address, skb, entry, &in_flight->event.trace, netns);
	} else {
		return 0;
	}
	in_flight_forget(skb);
	return 0;
}

/* Add the time at which a packet's data became readable. If unknown, the whole wait counts as the hole's. */
static __always_inline void stage_of_hole(struct in_flight_packet *in_flight, u64 sk, u64 now,
					  u32 netns)
{
	u32 last = in_flight->event.trace.stages - 1, cpu = bpf_get_smp_processor_id(), found = 0;
	const struct hole_log *log = hole_log_of(sk);
	struct stage *stage;

	barrier_var(last);
	if (last < CGNET_STAGES)
		found = find_fill(sk, in_flight->event.trace.seq,
				  in_flight->event.stages[last].ts_ns);
	if (found && log) {
		now = log->fills[(found - 1) & (HOLE_FILLS - 1)].ts_ns;
		cpu = log->fills[(found - 1) & (HOLE_FILLS - 1)].cpu;
	}
	stage = add_stage(in_flight, STAGE_IN_ORDER, now);
	if (!stage)
		return;
	stage->cpu = cpu;
	stage->netns = netns;
}

/* End a waiting packet; false if the application has not read it yet. Global function: verified once. */
__noinline int read_one(u64 sk, u64 number, u32 copied, u32 netns)
{
	struct waiting_key key = {.sk = sk, .number = number};
	struct in_flight_packet *in_flight = find_waiting(&key);
	struct stage *stage;
	u64 now;

	if (!in_flight)
		return true;
	if ((s32)(copied - in_flight->event.trace.seq - in_flight->event.trace.payload) < 0)
		return false;
	now = bpf_ktime_get_ns();
	if (in_flight->event.trace.out_of_order)
		stage_of_hole(in_flight, sk, now, netns);
	stage = add_stage(in_flight, STAGE_APP_READ, now);
	if (stage)
		stage->netns = netns;
	in_flight_ends(in_flight, TRACE_DELIVERED);
	waits_no_more(&key);
	return true;
}

static __always_inline u64 read_at_once(void)
{
	if (!uses_perf_buffer())
		return READ_AT_ONCE;
	return count_config.enabled ? SUMMED_UP_AT_ONCE_BY_PERF : READ_AT_ONCE_IN_PERF_BUFFERS;
}

/* The application has read the data before copied_seq; the ledger records the reader. */
static __always_inline int on_app(void *ctx, struct sock *sk)
{
	u8 *place = waited_at(sk);
	struct ledger_entry *entry;
	struct tcp_sock *tp;
	u32 copied, netns, first;
	u64 address, most;

	on_read(sk);
	if (!place || !*place)
		return 0;
	entry = ledger_find(TYPED, sk);
	if (!entry || entry->private.first == entry->private.behind)
		return 0;
	tp = tcp_sock_of(sk);
	if (!tp)
		return 0;
	first = entry->private.first;
	copied = READ(tp, copied_seq);
	netns = netns_of(TYPED, sk);
	address = address_of(sk);
	most = read_at_once();
	barrier_var(most);
	for (u64 i = 0; i < most; i++) {
		u64 number = entry->private.first;
		int done;

		if (number == entry->private.behind)
			break;
		done = WITH_PERF_FLUSH_MOST(ctx, 1, read_one(address, number, copied, netns));
		if (!done)
			break;
		entry->private.first++;
	}
	if (entry->role == ROLE_SERVER && entry->private.first != first)
		entry->private.read_ns = bpf_ktime_get_ns();
	return 0;
}

#endif
