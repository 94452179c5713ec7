/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Accepted connections, at the time they are established. */
#ifndef CGNET_CONNECT_INBOUND_BPF_H
#define CGNET_CONNECT_INBOUND_BPF_H

#include "connect/emit.bpf.h"

/* connect uses the ledger for listeners only, and adds no state to it. */
#define HAS_LEDGER_PRIVATE
struct ledger_private {};
#define SEEDED_STATES (1 << TCP_LISTEN)

#include "owner/open_sockets.bpf.h"

static __always_inline void outcome_of_child(const bool typed, struct tcp_sock *tp,
					     struct outcome *outcome)
{
	outcome->latency_ns = (u64)(READ(tp, srtt_us) >> 3) * NSEC_PER_USEC;
	outcome->syn_retrans = READ(tp, total_retrans);
	outcome->result = RESULT_OK;
	outcome->tcp_state = TCP_ESTABLISHED;
	outcome->role = ROLE_SERVER;
}

static __always_inline void emit_child(const bool typed, struct sock *sk)
{
	struct tcp_sock *tp = tcp_sock_of(typed, sk);
	struct holder *listener;
	struct outcome outcome;
	struct owner owner = {};
	struct flow flow;

	if (!tp)
		return;
	listener = listener_of(typed, sk);
	if (!listener && !is_new_child(typed, sk))
		return;
	if (listener ? !listener->wanted : !unknown_owner_passes())
		return;
	if (listener && listener->owner.source) {
		owner = listener->owner;
		owner.source = OWNER_INHERITED;
	}
	flow_of_sock(typed, sk, tp, &flow);
	outcome_of_child(typed, tp, &outcome);
	emit_connection(typed, sk, bpf_ktime_get_ns(), &owner, &flow, &outcome);
}

/* Also free the slot: no later event uses it. */
static __always_inline void listener_ends(const bool typed, struct sock *sk)
{
	forget_listener(typed, sk);
	if (typed)
		ledger_slot_free(sk);
}

static __always_inline int on_inbound(const bool typed, const bool first, struct sock *sk,
				      int oldstate, int newstate)
{
	if (!is_tcp(typed, sk))
		return 0;
	if (newstate == TCP_LISTEN && first)
		learn_listener(typed, sk);
	else if (oldstate == TCP_LISTEN && newstate == TCP_CLOSE && first)
		listener_ends(typed, sk);
	else if (oldstate == TCP_SYN_RECV && newstate == TCP_ESTABLISHED &&
		 !is_done(typed, first, sk))
		emit_child(typed, sk);
	return 0;
}

SET_STATE_PROGRAMS(server, on_inbound)

#endif
