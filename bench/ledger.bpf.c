// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What it costs to ask the ledger whose a socket is, where it is asked most: at tcp_probe, with every
 * segment. The programs before and after are empty; see empty.bpf.c. What learning adds to every read is in
 * the ledger's own program, with empty ones around.
 */
#include "base/flow.bpf.h"

#include "owner/all_sockets.bpf.h"
#include "filter/cgroup_events.bpf.h"
#include "count/count.bpf.h"

u64 asked; /* so that the answer is used */

#define EMPTY(name, hook)   \
	SEC(hook)           \
	int name(void *ctx) \
	{                   \
		return 0;   \
	}

EMPTY(first_probe, TRACEPOINT_WAY "tcp_probe")

static __always_inline int look_up(struct sock *sk)
{
	struct ledger_entry *entry = ledger_of(true, sk);

	if (entry)
		asked += holder_of(entry)->owner.cgroup_id;
	return 0;
}

TRACEPOINT_PROGRAM(lookup, tcp_probe, WITH(struct sock *sk), look_up(sk))
EMPTY(last_probe, TRACEPOINT_WAY "tcp_probe")

/* After the ledger's own, which stands before these in the object. */
EMPTY(last_read, TRACEPOINT_WAY "tcp_rcv_space_adjust")

static __always_inline int on_state(struct sock *sk, int oldstate, int newstate)
{
	if (is_tcp(sk))
		ledger_on_state(sk, oldstate, newstate);
	return 0;
}

TRACEPOINT_PROGRAM(state, inet_sock_set_state, WITH(struct sock *sk, int oldstate, int newstate),
		   on_state(sk, oldstate, newstate))

char LICENSE[] SEC("license") = "Dual BSD/GPL";
