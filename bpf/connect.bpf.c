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
#include "connection.bpf.h"
#include "sync_errors.bpf.h"
#include "inbound.bpf.h"

static __always_inline void begin(const bool typed, struct sock *sk)
{
	struct task_struct *task = current_task(typed);
	struct ledger_entry *entry;
	struct owner owner;

	if (READ_BITFIELD(sk, sk_protocol) != IPPROTO_TCP)
		return;
	connect_call_reached_tcp();
	learn(typed, task, &owner);
	if (!owner_passes(typed, task, &owner))
		return;
	entry = ledger_open(typed, sk);
	if (!entry)
		return;
	entry->owner = owner;
	attempt_begins(typed, sk, &entry->private);
}

static __always_inline void decide(const bool typed, struct sock *sk, int oldstate, int newstate)
{
	struct ledger_entry *entry = ledger_find(typed, sk);
	struct outcome outcome;
	struct tcp_sock *tp;
	struct flow flow;
	u64 now;

	if (!entry || unlikely(!entry->private.start_ns))
		return;
	now = bpf_ktime_get_ns();
	tp = tcp_sock_of(typed, sk);
	if (tp) {
		flow_of_sock(typed, sk, tp, &flow);
		outcome_of_attempt(typed, sk, tp, &entry->private, now, oldstate, newstate,
				   &outcome);
		emit_connection(typed, sk, now, &entry->owner, &flow, &outcome);
	}
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

ON_SET_STATE(client_typed, "tp_btf", true, FIRST)
ON_SET_STATE(client_typed_again, "tp_btf", true, SECOND)
ON_SET_STATE(client_raw, "raw_tp", false, FIRST)
ON_SET_STATE(client_raw_again, "raw_tp", false, SECOND)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
