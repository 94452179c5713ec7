/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Accepted connections, at the time they are established. */
#ifndef CGNET_CONNECT_INBOUND_BPF_H
#define CGNET_CONNECT_INBOUND_BPF_H

#include "connect/emit.bpf.h"

#include "owner/open_sockets.bpf.h"
#include "peer/making.bpf.h"

static __always_inline void outcome_of_child(struct tcp_sock *tp, struct outcome *outcome)
{
	outcome->latency_ns = (u64)(READ(tp, srtt_us) >> 3) * NSEC_PER_USEC;
	outcome->syn_retrans = READ(tp, total_retrans);
	outcome->result = RESULT_OK;
	outcome->tcp_state = TCP_ESTABLISHED;
	outcome->role = ROLE_SERVER;
}

static __always_inline void server_is_made(u64 now, struct tcp_sock *tp, const struct owner *owner,
					   bool wanted)
{
	struct identity identity;

	if (!peer_config.follow)
		return;
	identity_at_start(tp, ROLE_SERVER, &identity);
	end_is_made(now, &identity, owner, wanted);
}

static __always_inline void emit_child(struct sock *sk)
{
	struct tcp_sock *tp = tcp_sock_of(sk);
	struct holder *listener;
	struct outcome outcome;
	struct owner owner = {};
	struct flow flow;
	bool wanted;
	u64 now;

	if (!tp)
		return;
	listener = listener_of(sk);
	if (!listener && !is_new_child(sk)) {
		if (!was_joined(sk))
			return;
		listener = holder_of_connection(sk);
		if (!listener)
			listener = listener_by_address(TYPED, sk);
	}
	wanted = (listener ? listener->wanted : unknown_owner_passes()) && role_passes(ROLE_SERVER);
	if (!wanted && !peer_config.follow)
		return;
	if (listener && listener->owner.source) {
		owner = listener->owner;
		owner.source = OWNER_INHERITED;
	}
	now = bpf_ktime_get_ns();
	server_is_made(now, tp, &owner, wanted);
	if (!wanted)
		return;
	flow_of_sock(TYPED, sk, tp, &flow);
	outcome_of_child(tp, &outcome);
	emit_connection(sk, now, &owner, &flow, &outcome, tp);
}

/* Also free the slot: no later event uses it. */
static __always_inline void listener_ends(struct sock *sk)
{
	forget_listener(sk);
	if (TYPED)
		ledger_slot_free(sk);
}

static __always_inline int accept_on_state(const bool first, struct sock *sk, int oldstate,
					   int newstate)
{
	if (!is_tcp(sk))
		return 0;
	if (newstate == TCP_LISTEN && first)
		learn_listener(sk);
	else if (oldstate == TCP_LISTEN && newstate == TCP_CLOSE && first)
		listener_ends(sk);
	else if (oldstate == TCP_SYN_RECV && newstate == TCP_ESTABLISHED && !is_done(first, sk))
		emit_child(sk);
	return 0;
}

#endif
