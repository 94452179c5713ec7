/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Segments, SYNs and SYN-ACKs that TCP sent again: bodies of programs. The tracepoints fire when TCP has sent the
 * segment, with the state that made it do so. A SYN-ACK has no connection yet: it belongs to the listener's owner.
 */
#ifndef CGNET_RETRANS_RESENDS_BPF_H
#define CGNET_RETRANS_RESENDS_BPF_H

#include "base/flow.bpf.h"
#include "owner/all_sockets.bpf.h"
#include "count/count.bpf.h"
#include "retrans/cause.bpf.h"
#include "retrans/dropped_here.bpf.h"
#include "sums/hooks.bpf.h"

/* include/net/tcp.h */
#define TCP_INFINITE_SSTHRESH 0x7fffffff

CROSSES_TO_USER_SPACE(retrans_event);
CONFIG(count_config);
CONFIG(retrans_config);

/* Resends that failed, by errno. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CGNET_ERRNOS);
	__type(key, u32);
	__type(value, u64);
} failed_resends SEC(".maps");

static __always_inline void count_failure(s32 error)
{
	u32 number = error < 0 ? -error : 0;
	u64 *count;

	if (number >= CGNET_ERRNOS)
		number = 0;
	count = bpf_map_lookup_elem(&failed_resends, &number);
	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline bool retrans_passes(const struct retrans *retrans)
{
	return role_passes(retrans->role) &&
	       (!retrans_config.by_cause || (retrans_config.by_cause >> (retrans->cause & 31) & 1));
}

static __always_inline void count_retrans(const struct owner *owner, const struct flow *flow,
					  const struct retrans *retrans)
{
	struct count_key key = {};

	count_by_owner(&key, owner);
	count_by_flow(&key, flow);
	if (count_config.by & BY_ROLE)
		key.role = retrans->role;
	if (count_config.by & BY_CAUSE)
		key.result = retrans->cause;
	if (count_config.by & BY_DROPPED)
		key.location = retrans->dropped;
	count_several(&key, retrans->segs);
}

/* A function of its own: the caller's stack has no room for a key. */
static __noinline int emit_retrans(const struct owner *owner, const struct flow *flow,
				   const struct identity *identity, const struct retrans *retrans)
{
	struct retrans_event *event;

	sum_resend(owner, retrans);
	if (!tells(SIGNAL_RETRANS))
		return 0;
	if (counts_instead()) {
		count_retrans(owner, flow, retrans);
		return 0;
	}
	event = reserve_in(RING_RESENDS, sizeof(*event), RECORD_RETRANS, bpf_ktime_get_ns(),
			   LOST_RING);
	if (!event)
		return 0;
	event->owner = *owner;
	event->flow = *flow;
	event->identity = *identity;
	event->retrans = *retrans;
	submit(event);
	return 0;
}

static __always_inline u32 timer_us(u32 ticks)
{
	return (u64)ticks * retrans_config.tick_ns / NSEC_PER_USEC;
}

static __always_inline void describe_segment(struct sock *sk, struct tcp_sock *tp,
					     struct sk_buff *skb, struct retrans *retrans)
{
	struct tcp_skb_cb *control = control_block(skb);

	retrans->seq = READ(control, seq);
	retrans->len = READ(skb, len);
	retrans->segs = READ(control, tcp_gso_segs);
	retrans->rto_us = timer_us(READ(tp, inet_conn.icsk_rto));
	retrans->srtt_us = READ(tp, srtt_us) >> 3;
	retrans->cwnd = READ(tp, snd_cwnd);
	retrans->ssthresh = READ(tp, snd_ssthresh);
	if (retrans->ssthresh >= TCP_INFINITE_SSTHRESH)
		retrans->ssthresh = 0;
	retrans->in_flight = READ(tp, packets_out) - READ(tp, sacked_out) - READ(tp, lost_out) +
			     READ(tp, retrans_out);
	retrans->tcp_state = READ(sk, __sk_common.skc_state);
}

static __always_inline int on_segment(struct sock *sk, struct sk_buff *skb, s32 error)
{
	struct ledger_entry *entry = ledger_of(true, sk);
	struct tcp_sock *tp = tcp_sock_of(sk);
	struct retrans retrans = {};
	const struct holder *holder;
	struct identity identity;
	struct flow flow;
	u64 before;

	if (!entry || !tp)
		return 0;
	holder = holder_of(entry);
	retrans.cause = cause_of(tp, skb);
	retrans.role = entry->role;
	if (!holder->wanted || !retrans_passes(&retrans))
		return 0;
	flow_of_sock(TYPED, sk, tp, &flow);
	if (!flow_passes(TYPED, sk, &flow))
		return 0;
	if (error) {
		count_failure(error);
		return 0;
	}
	describe_segment(sk, tp, skb, &retrans);
	identity_in_life(TYPED, tp, entry, &identity);
	retrans.attempt = next_attempt(sk, retrans.seq, READ(tp, tcp_clock_cache), &before);
	find_drop_of_segment(tp, skb, &flow, before, &retrans);
	emit_retrans(&holder->owner, &flow, &identity, &retrans);
	return 0;
}

/* Owner of a listener; of the connection, where Fast Open has made it before the handshake's end. */
static __always_inline void find_owner(struct sock *sk, struct holder *holder)
{
	struct ledger_entry *entry;
	struct holder *listener;
	u64 inode;

	if (READ(sk, __sk_common.skc_state) != TCP_LISTEN) {
		entry = ledger_of(true, sk);
		if (entry)
			*holder = *holder_of(entry);
		return;
	}
	inode = socket_inode(sk);
	listener = holder_now(bpf_map_lookup_elem(&listening, &inode));
	if (listener && listener->owner.source) {
		*holder = *listener;
		holder->owner.source = OWNER_INHERITED;
	} else {
		fall_back(sk, holder);
	}
}

static __always_inline int on_synack(struct sock *sk, struct request_sock *request)
{
	struct retrans retrans = {.cause = RETRANS_SYNACK, .role = ROLE_SERVER, .segs = 1};
	struct sock *part = (struct sock *)request; /* both begin with struct sock_common */
	struct tcp_request_sock *tcp_request = (void *)request;
	struct holder holder = {};
	u64 now = bpf_ktime_get_ns(), before;
	struct identity none = {};
	struct flow flow;

	if (!retrans_passes(&retrans))
		return 0;
	find_owner(sk, &holder);
	FORGET_VALUES(&holder);
	if (!holder.wanted)
		return 0;
	flow_from_port(TYPED, part, READ(part, __sk_common.skc_num), &flow);
	if (!flow_passes(TYPED, sk, &flow))
		return 0;
	retrans.tcp_state = TCP_NEW_SYN_RECV;
	retrans.seq = BPF_CORE_READ(tcp_request, snt_isn);
	retrans.in_flight = CGNET_NO_FLIGHT;
	retrans.attempt = READ_BITFIELD(request, num_retrans) + 1;
	next_attempt(part, retrans.seq, now, &before);
	find_drop_of_synack(request, &flow, before, now, &retrans);
	emit_retrans(&holder.owner, &flow, &none, &retrans);
	return 0;
}

static __always_inline int retrans_on_state(struct sock *sk, int oldstate, int newstate)
{
	if (!is_tcp(sk))
		return 0;
	ledger_on_state(sk, oldstate, newstate);
	remember_time_wait(sk, oldstate, newstate);
	return 0;
}

#endif
