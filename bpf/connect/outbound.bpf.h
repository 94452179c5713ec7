/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Outbound attempts, from TCP_SYN_SENT to their decision. */
#ifndef CGNET_CONNECT_OUTBOUND_BPF_H
#define CGNET_CONNECT_OUTBOUND_BPF_H

#include "connect/attempt_table.bpf.h"
#include "connect/emit.bpf.h"
#include "owner/guess.bpf.h"
#include "owner/mptcp.bpf.h"
#include "peer/making.bpf.h"

/* A further subflow of MPTCP is its connection's: whoever adds an address to the host, or no process, opens it. */
static __always_inline void hold_attempt(struct sock *sk, struct holder *holder)
{
	bool subflow = is_subflow(sk);
	struct holder *known;

	if (unlikely(subflow && joins_connection(sk))) {
		known = holder_of_connection(sk);
		if (known)
			*holder = *known;
		else
			fall_back(sk, holder);
		return;
	}
	hold(current_task(), holder);
	if (unlikely(subflow))
		remember_connection(sk, holder, BPF_ANY);
}

/* Functions of their own, this and decide(): one stack has no room for both. */
static __noinline int begin(struct sock *sk)
{
	struct holder holder = {};
	struct attempt *attempt;
	bool wanted;

	if (!is_tcp(sk))
		return 0;
	connect_call_reached_tcp();
	hold_attempt(sk, &holder);
	wanted = holder.wanted && role_passes(ROLE_CLIENT);
	if (!wanted && !peer_config.follow)
		return 0;
	attempt = attempt_open(sk);
	if (!attempt)
		return 0;
	attempt->owner = holder.owner;
	attempt->start.unwanted = !wanted;
	attempt_begins(sk, &attempt->start);
	return 0;
}

/* Before the record, which has the same identity. */
static __always_inline void client_is_made(u64 now, struct tcp_sock *tp,
					   const struct attempt *attempt, int newstate)
{
	struct identity identity;

	if (!peer_config.follow || newstate != TCP_ESTABLISHED)
		return;
	identity_at_start(tp, ROLE_CLIENT, &identity);
	end_is_made(now, &identity, &attempt->owner, !attempt->start.unwanted);
}

static __noinline int decide(struct sock *sk, int oldstate, int newstate)
{
	struct attempt *attempt = attempt_find(sk);
	struct outcome outcome;
	struct tcp_sock *tp;
	struct flow flow;
	u64 now;

	if (!attempt || unlikely(!attempt->start.start_ns))
		return 0;
	now = bpf_ktime_get_ns();
	tp = tcp_sock_of(sk);
	if (tp) {
		flow_of_sock(TYPED, sk, tp, &flow);
		outcome_of_attempt(sk, tp, &attempt->start, now, oldstate, newstate, &outcome);
		client_is_made(now, tp, attempt, newstate);
		if (!attempt->start.unwanted)
			emit_connection(sk, now, &attempt->owner, &flow, &outcome, tp);
	}
	attempt->start.start_ns = 0;
	attempt_done(sk, attempt);
	return 0;
}

/* Attempts start in processes, which interrupt no program. The second decision finds no attempt. */
static __always_inline int connect_on_state(const bool first, struct sock *sk, int oldstate,
					    int newstate)
{
	if (newstate == TCP_SYN_SENT && first)
		begin(sk);
	else if (oldstate == TCP_SYN_SENT && newstate != TCP_SYN_RECV)
		decide(sk, oldstate, newstate);
	else if (oldstate == TCP_SYN_RECV)
		decide(sk, oldstate, newstate);
	return 0;
}

static __always_inline int connect_on_error(struct sock *sk)
{
	struct attempt *attempt;

	if (!may_have_icmp_error(sk))
		return 0;
	attempt = attempt_find(sk);
	if (attempt)
		attempt_has_error(sk, &attempt->start);
	return 0;
}

#endif
