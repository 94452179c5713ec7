/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * States of sockets in a session: the ledger looks each one up once, and all signals go by its entry. So an
 * attempt needs no table of its own.
 */
#ifndef CGNET_SESSION_STATE_BPF_H
#define CGNET_SESSION_STATE_BPF_H

#include "session/ledger.bpf.h"
#include "connect/emit.bpf.h"
#include "connect/inbound.bpf.h"
#include "drop/drops.bpf.h"
#include "life/ends.bpf.h"
#include "rtt/samples.bpf.h"

#define OF_ATTEMPTS (SIGNAL_CONNECT | SIGNAL_ACCEPT)

/* -- attempts, and connections that were accepted */

static __always_inline void tell_outcome(struct sock *sk, struct tcp_sock *tp,
					 const struct owner *owner, const struct outcome *outcome)
{
	bool told = tells(outcome->role == ROLE_SERVER ? SIGNAL_ACCEPT : SIGNAL_CONNECT);
	struct flow flow;

	if (told || filters_flows()) {
		flow_of_sock(TYPED, sk, tp, &flow);
		if (!flow_passes(TYPED, sk, &flow))
			return;
	}
	if (outcome->role == ROLE_SERVER)
		sum_accept(owner);
	else
		sum_attempt(owner, outcome);
	if (told)
		emit_connection(sk, bpf_ktime_get_ns(), owner, &flow, outcome, tp);
}

static __always_inline void connects(struct sock *sk, struct ledger_entry *entry)
{
	connect_call_reached_tcp();
	attempt_begins(sk, &entry->private.attempt);
	entry->private.life.begun_ns = entry->private.attempt.start_ns;
}

static __always_inline void attempt_is_decided(struct sock *sk, struct ledger_entry *entry,
					       int oldstate, int newstate)
{
	struct attempt_start *attempt = &entry->private.attempt;
	const struct holder *holder = holder_of(entry);
	struct tcp_sock *tp = tcp_sock_of(sk);
	struct outcome outcome;
	u64 now;

	if (!attempt->start_ns || !tp)
		return;
	now = newstate == TCP_ESTABLISHED ? entry->private.life.established_ns : bpf_ktime_get_ns();
	outcome_of_attempt(sk, tp, attempt, now, oldstate, newstate, &outcome);
	attempt->start_ns = 0;
	if (holder->wanted && role_passes(ROLE_CLIENT))
		tell_outcome(sk, tp, &holder->owner, &outcome);
}

static __always_inline void is_accepted(struct sock *sk, struct ledger_entry *entry)
{
	const struct holder *holder = holder_of(entry);
	struct tcp_sock *tp = tcp_sock_of(sk);
	struct outcome outcome;

	if (!tp || !holder->wanted || !role_passes(ROLE_SERVER))
		return;
	outcome_of_child(tp, &outcome);
	tell_outcome(sk, tp, &holder->owner, &outcome);
}

static __always_inline int session_on_error(struct sock *sk)
{
	struct ledger_entry *entry;

	if (!may_have_icmp_error(sk))
		return 0;
	entry = ledger_find(TYPED, sk);
	if (entry)
		attempt_has_error(sk, &entry->private.attempt);
	return 0;
}

static __always_inline int session_on_probe(struct sock *sk, struct sk_buff *skb)
{
	struct ledger_entry *entry = ledger_of(true, sk);

	if (!entry)
		return 0;
	if (is_wanted(SIGNAL_TURNS))
		turn_goes_on(sk, skb, entry);
	if (is_wanted(SIGNAL_RTT))
		look(sk, entry, TCP_ESTABLISHED);
	return 0;
}

/* -- all signals: functions of their own, as one stack has no room for them together */

static __noinline int drops_need(struct sock *sk, int oldstate, int newstate)
{
	remember_time_wait(sk, oldstate, newstate);
	if (newstate == TCP_SYN_SENT)
		remember_sender(sk);
	if (drop_config.syn_drops)
		queue_on_state(sk, oldstate, newstate);
	return 0;
}

static __noinline int attempts_go_on(struct sock *sk, struct ledger_entry *entry, int oldstate,
				     int newstate)
{
	if (oldstate == TCP_SYN_SENT && newstate != TCP_SYN_RECV)
		attempt_is_decided(sk, entry, oldstate, newstate);
	else if (oldstate == TCP_SYN_RECV && entry->role == ROLE_CLIENT)
		attempt_is_decided(sk, entry, oldstate, newstate);
	else if (oldstate == TCP_SYN_RECV && newstate == TCP_ESTABLISHED)
		is_accepted(sk, entry);
	return 0;
}

static __noinline int rtt_goes_on(struct sock *sk, struct ledger_entry *entry, int oldstate,
				  int newstate)
{
	if (newstate == TCP_ESTABLISHED)
		look_first(sk, entry);
	else if (oldstate != TCP_SYN_SENT && oldstate != TCP_SYN_RECV)
		look(sk, entry, oldstate);
	return 0;
}

static __noinline int life_ends(struct sock *sk, struct ledger_entry *entry, int state)
{
	end(sk, entry, state);
	return 0;
}

static __always_inline void life_goes_on(struct sock *sk, struct ledger_entry *entry, int oldstate,
					 int newstate)
{
	if (newstate == TCP_ESTABLISHED)
		established(sk, entry);
	else if (is_closing(newstate))
		closes(sk, entry);
	else if (newstate == TCP_CLOSE && was_open(oldstate))
		life_ends(sk, entry, oldstate);
}

static __always_inline void state_changes(struct sock *sk, int oldstate, int newstate)
{
	struct ledger_entry *entry = ledger_on_state(sk, oldstate, newstate);
	u64 unknown;

	if (is_wanted(SIGNAL_DROP))
		drops_need(sk, oldstate, newstate);
	if (newstate == TCP_SYN_SENT) {
		if (entry)
			connects(sk, entry);
		return;
	}
	if (newstate == TCP_LISTEN || newstate == TCP_SYN_RECV || oldstate == TCP_LISTEN)
		return;
	unknown = sk->__sk_common.skc_hash;
	FORGET(oldstate, unknown);
	FORGET(newstate, unknown);
	if (!entry || entry->whole <= 1 << RANK_GUESSED)
		entry = ledger_of(newstate != TCP_CLOSE, sk);
	if (!entry)
		return;
	life_goes_on(sk, entry, oldstate, newstate);
	if (is_wanted(OF_ATTEMPTS))
		attempts_go_on(sk, entry, oldstate, newstate);
	if (is_wanted(SIGNAL_RTT))
		rtt_goes_on(sk, entry, oldstate, newstate);
}

/* A connection is established and ends once: the second program makes up for what the first one missed. */
static __always_inline int session_on_state(const bool first, struct sock *sk, int oldstate,
					    int newstate)
{
	bool twice = newstate == TCP_ESTABLISHED || newstate == TCP_CLOSE;

	if ((!first && !twice) || !is_tcp(sk))
		return 0;
	if (first && newstate == TCP_SYN_SENT)
		end_waiting(sk, 0);
	if (twice && is_done(first, sk))
		return 0;
	if (!first && newstate == TCP_ESTABLISHED && is_known(sk))
		return 0;
	state_changes(sk, oldstate, newstate);
	return 0;
}

#endif
