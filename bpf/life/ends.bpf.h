/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connections, from establishment to their end: bodies of programs. A record is made at TCP_CLOSE, which comes
 * once: later the socket is cleared, or connects again.
 */
#ifndef CGNET_LIFE_ENDS_BPF_H
#define CGNET_LIFE_ENDS_BPF_H

#include "life/private.bpf.h"
#include "owner/all_sockets.bpf.h"
#include "life/close_cause.bpf.h"
#include "life/pending_rows.bpf.h"
#include "life/turns.bpf.h"
#include "sums/hooks.bpf.h"

/* -- the end */

static __always_inline void end(struct sock *sk, struct ledger_entry *entry, int state)
{
	struct tcp_sock *tp = tcp_sock_of(sk);
	struct life_private *mine;
	u64 now = bpf_ktime_get_ns();
	const struct holder *holder;
	struct waiting_row row = {};
	u32 ending;

	if (!tp)
		return;
	mine = &entry->private.life;
	if (mine->ended)
		return;
	mine->ended = 1;
	holder = holder_of(entry);
	if (!is_wanted(SIGNAL_LIFE) || !holder->wanted || !role_passes(entry->role))
		return;
	if (tells(SIGNAL_LIFE) || filters_flows()) {
		flow_of_sock(TYPED, sk, tp, &row.flow);
		if (!flow_passes(TYPED, sk, &row.flow))
			return;
	}
	turn_ends(tp, entry);
	life_so_far(TYPED, now, sk, tp, entry, state, &row.life);
	if (tells(SIGNAL_LIFE))
		identity_in_life(TYPED, tp, entry, &row.identity);
	FORGET(state, now);
	ending = how_it_ended(sk, state, mine->reset_received, &holder->owner);
	FORGET(ending, now);
	row.life.closed_by = ending;
	row.life.close_cause = ending >> 8;
	row.life.rst_reason = mine->rst_reason;
	sum_end(&holder->owner, entry, &row.life);
	if (!tells(SIGNAL_LIFE))
		return;
	if (TYPED && mine->reset_received == RESET_FOR_LATE_DATA)
		row.life.rst_reason = reason_of_late_data();
	else if (TYPED && can_wait(sk, &holder->owner, &row))
		return;
	emit_life(now, &holder->owner, &row.flow, &row.life, &row.identity);
}

/* -- before the end */

static __always_inline void established(struct sock *sk, struct ledger_entry *entry)
{
	struct tcp_sock *tp = tcp_sock_of(sk);
	u64 now = bpf_ktime_get_ns();

	if (!tp)
		return;
	entry->private.life.established_ns = now;
	if (entry->private.life.begun_ns)
		entry->private.life.handshake_ns = now - entry->private.life.begun_ns;
	else
		entry->private.life.handshake_ns = (u64)(READ(tp, srtt_us) >> 3) * NSEC_PER_USEC;
}

static __always_inline void closes(struct sock *sk, struct ledger_entry *entry)
{
	struct tcp_sock *tp = tcp_sock_of(sk);

	if (!tp)
		return;
	turns_end(tp, entry);
	entry->private.life.data_segs_at_fin = READ(tp, data_segs_in);
	entry->private.life.bytes_at_fin = READ(tp, bytes_received);
}

static __always_inline bool was_open(int state)
{
	return state != TCP_SYN_SENT && state != TCP_SYN_RECV && state != TCP_LISTEN;
}

/* The application closes: its last event. */
static __always_inline bool is_closing(int state)
{
	return state == TCP_FIN_WAIT1 || state == TCP_LAST_ACK;
}

static __always_inline bool is_known(struct sock *sk)
{
	struct ledger_entry *entry = ledger_find(TYPED, sk);

	return entry && !entry->listens && entry->private.life.established_ns;
}

/* Whether a state, but TCP_SYN_SENT, begins a connection, is its application's last event, or ends it. */
static __always_inline bool is_of_life(int oldstate, int newstate)
{
	if (oldstate == TCP_LISTEN)
		return false;
	return newstate == TCP_CLOSE ? was_open(oldstate)
				     : newstate == TCP_ESTABLISHED || is_closing(newstate);
}

static __always_inline void on_change(struct sock *sk, int oldstate, int newstate)
{
	struct ledger_entry *entry;
	u64 unknown;

	entry = ledger_on_state(sk, oldstate, newstate);
	if (newstate == TCP_SYN_SENT) {
		if (entry)
			entry->private.life.begun_ns = bpf_ktime_get_ns();
		return;
	}
	if (!is_of_life(oldstate, newstate))
		return;
	unknown = TYPED ? sk->__sk_common.skc_hash : (u64)sk;
	FORGET(oldstate, unknown);
	FORGET(newstate, unknown);
	if (!entry || entry->whole <= 1 << RANK_GUESSED)
		entry = ledger_of(is_closing(newstate), sk);
	if (!entry)
		return;
	if (newstate == TCP_ESTABLISHED)
		established(sk, entry);
	else if (is_closing(newstate))
		closes(sk, entry);
	else
		end(sk, entry, oldstate);
}

static __always_inline void on_first(struct sock *sk, int oldstate, int newstate)
{
	if (TYPED && newstate == TCP_SYN_SENT)
		end_waiting(sk, 0);
	on_change(sk, oldstate, newstate);
}

/* Softirq events that the first program missed: a connection begins and ends once. */
static __always_inline void on_second(struct sock *sk, int oldstate, int newstate)
{
	if (newstate == TCP_CLOSE || !is_known(sk))
		on_change(sk, oldstate, newstate);
}

static __always_inline int life_on_state(const bool first, struct sock *sk, int oldstate,
					 int newstate)
{
	bool twice = newstate == TCP_ESTABLISHED || (newstate == TCP_CLOSE && was_open(oldstate));

	if ((!first && !twice) || !is_tcp(sk))
		return 0;
	if (first)
		on_first(sk, oldstate, newstate);
	if (twice && !is_done(first, sk) && !first)
		on_second(sk, oldstate, newstate);
	return 0;
}

static __always_inline int on_receive_reset(struct sock *sk)
{
	struct ledger_entry *entry = ledger_of(true, sk);
	struct tcp_sock *tp = tcp_sock_of(sk);

	if (!entry || !tp)
		return 0;
	if (data_came_late(sk, tp, entry->private.life.data_segs_at_fin,
			   entry->private.life.bytes_at_fin))
		entry->private.life.reset_received = RESET_FOR_LATE_DATA;
	else
		entry->private.life.reset_received = RESET_OF_PEER;
	return 0;
}

#if TYPED
/* Fires before the end for a time-out, after it for an abort; there may be no socket, or not a full one. */
static __always_inline int on_send_reset(u64 *ctx, struct sock *sk)
{
	struct ledger_entry *entry;
	u32 reason = 0;

	if (!sk || !is_full(sk))
		return 0;
	if (tells_rst_reason())
		reason = ctx[2] + 1;
	end_waiting(sk, reason);
	entry = ledger_find(TYPED, sk);
	if (!entry)
		return 0;
	entry->private.life.rst_reason = reason;
	return 0;
}
#endif

#endif
