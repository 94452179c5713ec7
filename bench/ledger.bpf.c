// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What it costs to ask the ledger whose a socket is, where it is asked most: at tcp_probe, with every
 * segment. The programs before and after are empty; see empty.bpf.c. What learning adds to every read is in
 * the ledger's own program, with empty ones around.
 */
#include "flow.bpf.h"

struct ledger_private {
	u64 none;
};

#include "tracking.bpf.h"
#include "births.bpf.h"
#include "count.bpf.h"

u64 asked; /* so that the answer is used */

#define EMPTY(name, hook)   \
	SEC(hook)           \
	int name(void *ctx) \
	{                   \
		return 0;   \
	}

EMPTY(first_probe_typed, "tp_btf/tcp_probe")
SEC("tp_btf/tcp_probe")
int BPF_PROG(lookup_typed, struct sock *sk)
{
	struct ledger_entry *entry = ledger_of(true, true, sk);

	if (entry)
		asked += holder_of(entry)->owner.cgroup_id;
	return 0;
}
EMPTY(last_probe_typed, "tp_btf/tcp_probe")

EMPTY(first_probe_raw, "raw_tp/tcp_probe")
SEC("raw_tp/tcp_probe")
int BPF_PROG(lookup_raw, struct sock *sk)
{
	struct ledger_entry *entry = ledger_of(false, true, sk);

	if (entry)
		asked += holder_of(entry)->owner.cgroup_id;
	return 0;
}
EMPTY(last_probe_raw, "raw_tp/tcp_probe")

/* After the ledger's own, which stands before these in the object. */
EMPTY(last_read_typed, "tp_btf/tcp_rcv_space_adjust")
EMPTY(last_read_raw, "raw_tp/tcp_rcv_space_adjust")

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(state_typed, struct sock *sk, int oldstate, int newstate)
{
	if (is_tcp(true, sk))
		ledger_on_state(true, sk, oldstate, newstate);
	return 0;
}

SEC("raw_tp/inet_sock_set_state")
int BPF_PROG(state_raw, struct sock *sk, int oldstate, int newstate)
{
	if (is_tcp(false, sk))
		ledger_on_state(false, sk, oldstate, newstate);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
