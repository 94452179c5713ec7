// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Listing of the open sockets of all network namespaces, on demand: nothing is attached to an event of the
 * host but the name that cgnet's own thread takes. docs/design/snapshots.md tells why. Where listings of
 * listeners repeat, a program follows their queues.
 */
#include "sockets/holders.bpf.h"
#include "sockets/walk.bpf.h"

/* Global: the verifier walks it once, and not for each step. */
__noinline int list_socket(u64 address)
{
	list(false, address);
	return 0;
}

SEC("raw_tp/task_rename")
int BPF_PROG(walk, struct task_struct *task, const char *name)
{
	struct socket_query *asked = current_query();

	if (!asked || !is_asking(name, asked->name))
		return 0;
	if (asked->table == WALK_NAMESPACES)
		walk_namespaces(asked);
	else
		WALK_SOME(asked, STEPS, list_socket);
	return 0;
}

/* For kernels without global functions, or jiffies: Linux kernel commits 51c39bb1d5d1 and 5576b991e9c1 (in v5.6). */
static __noinline int list_socket_briefly(u64 address)
{
	list(true, address);
	return 0;
}

SEC("raw_tp/task_rename")
int BPF_PROG(walk_briefly, struct task_struct *task, const char *name)
{
	struct socket_query *asked = current_query();

	if (!asked || !is_asking(name, asked->name))
		return 0;
	if (asked->table == WALK_NAMESPACES)
		walk_namespaces(asked);
	else
		WALK_SOME(asked, FEW_STEPS, list_socket_briefly);
	return 0;
}

/* For repeated listings of listeners: a queue may fill up and be emptied between two of them. */
SEC("raw_tp/inet_sock_set_state")
int BPF_PROG(queues, struct sock *sk, int old, int new)
{
	watch_state(sk, old, new);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
