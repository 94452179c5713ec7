// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Outbound TCP connection attempts, and how each was decided.
 *
 * An attempt begins when a socket goes to TCP_SYN_SENT, in the context of the process that
 * connects. It is decided when the socket leaves TCP_SYN_SENT, or the TCP_SYN_RECV of a
 * simultaneous open, mostly in softirq. One decision ends the attempt, so that no attempt gives two
 * records.
 */
#include "attempt.bpf.h"
#include "sync_errors.bpf.h"

static __always_inline void begin(const bool typed, struct sock *sk)
{
	struct ledger_entry *entry;

	if (READ_BITFIELD(sk, sk_protocol) != IPPROTO_TCP)
		return;
	connect_call_reached_tcp();
	if (!current_is_selected(typed))
		return;
	entry = ledger_open(typed, sk);
	if (!entry)
		return;
	learn(typed, &entry->owner);
	attempt_begins(typed, sk, &entry->private);
}

static __always_inline void decide(const bool typed, struct sock *sk, int oldstate, int newstate)
{
	struct ledger_entry *entry = ledger_find(typed, sk);
	struct tcp_sock *tp;

	if (!entry || unlikely(!entry->private.start_ns))
		return;
	tp = tcp_sock_of(typed, sk);
	if (tp)
		emit_decision(typed, sk, tp, entry, oldstate, newstate);
	entry->private.start_ns = 0;
	ledger_done(typed, sk, entry);
}

/* Attempts begin in processes, which interrupt nothing. The second decision finds no attempt. */
static __always_inline int on_set_state(const bool typed, const bool first, struct sock *sk,
					int oldstate, int newstate)
{
	if (newstate == TCP_SYN_SENT && first)
		begin(typed, sk);
	else if (oldstate == TCP_SYN_SENT && newstate != TCP_SYN_RECV)
		decide(typed, sk, oldstate, newstate);
	else if (oldstate == TCP_SYN_RECV)
		decide(typed, sk, oldstate, newstate);
	return 0;
}

#define ON_SET_STATE(name, hook, typed, first)                             \
	SEC(hook "/inet_sock_set_state")                                   \
	int BPF_PROG(name, struct sock *sk, int oldstate, int newstate)    \
	{                                                                  \
		return on_set_state(typed, first, sk, oldstate, newstate); \
	}

ON_SET_STATE(set_state_typed, "tp_btf", true, FIRST)
ON_SET_STATE(set_state_typed_again, "tp_btf", true, SECOND)
ON_SET_STATE(set_state_raw, "raw_tp", false, FIRST)
ON_SET_STATE(set_state_raw_again, "raw_tp", false, SECOND)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
