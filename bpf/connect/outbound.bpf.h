/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Outbound attempts, from TCP_SYN_SENT to their decision. */
#ifndef CGNET_CONNECT_OUTBOUND_BPF_H
#define CGNET_CONNECT_OUTBOUND_BPF_H

#include "connect/attempt_table.bpf.h"
#include "connect/emit.bpf.h"
#include "peer/making.bpf.h"

static __always_inline void begin(struct sock *sk)
{
	struct task_struct *task = current_task();
	struct attempt *attempt;
	struct owner owner;
	bool wanted;

	if (!is_tcp(sk))
		return;
	connect_call_reached_tcp();
	learn(task, &owner);
	wanted = owner_passes(task, &owner) && role_passes(ROLE_CLIENT);
	if (!wanted && !peer_config.follow)
		return;
	attempt = attempt_open(sk);
	if (!attempt)
		return;
	attempt->owner = owner;
	attempt->start.unwanted = !wanted;
	attempt_begins(sk, &attempt->start);
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

static __always_inline void decide(struct sock *sk, int oldstate, int newstate)
{
	struct attempt *attempt = attempt_find(sk);
	struct outcome outcome;
	struct tcp_sock *tp;
	struct flow flow;
	u64 now;

	if (!attempt || unlikely(!attempt->start.start_ns))
		return;
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
