/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * MPTCP: a file's socket does not get TCP's events, but is above one or more sockets that do, its subflows. A
 * process opens the first one; kernel threads open further ones, or a process that adds an address to the
 * host (`ip mptcp endpoint`), and they belong to the same owner.
 *
 * Programs cannot use the socket storage of the upper socket, to which no typed pointer leads. The subflows
 * of a connection share its file's inode, which is the key of the owner here.
 */
#ifndef CGNET_OWNER_MPTCP_BPF_H
#define CGNET_OWNER_MPTCP_BPF_H

#include "owner/listeners.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct holder);
} mptcp_owners SEC(".maps");

static __always_inline bool is_subflow(struct sock *sk)
{
	struct tcp_sock *tp = tcp_sock_of(sk);

	if (!tp || !bpf_core_field_exists(tp->is_mptcp))
		return false;
	return READ_BITFIELD(tp, is_mptcp);
}

/* Whether this is a further subflow: the task that opens it is not its user. */
static __always_inline bool joins_connection(struct sock *sk)
{
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)sk;
	struct mptcp_subflow_context *subflow = NULL;

	if (!bpf_core_field_exists(subflow->request_join))
		return false;
	subflow = BPF_CORE_READ(icsk, icsk_ulp_data);
	return BPF_CORE_READ_BITFIELD_PROBED(subflow, request_join);
}

struct mptcp_subflow_context___join {
	u32 mp_join : 1;
} __attribute__((preserve_access_index));

/* Whether an accepted socket is a further subflow: it has its connection's file already. */
static __always_inline bool was_joined(struct sock *sk)
{
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)sk;
	struct mptcp_subflow_context___join *subflow = NULL;

	if (!is_subflow(sk) || !bpf_core_field_exists(subflow->mp_join) || joins_connection(sk))
		return false;
	subflow = (void *)BPF_CORE_READ(icsk, icsk_ulp_data);
	return BPF_CORE_READ_BITFIELD_PROBED(subflow, mp_join);
}

/* Record the process that opens the first subflow of a connection, or has it open. */
static __always_inline bool remember_connection(struct sock *sk, const struct holder *holder,
						u64 flags)
{
	u64 inode = socket_inode(sk);

	return inode && !bpf_map_update_elem(&mptcp_owners, &inode, holder, flags);
}

/* Owner of a subflow's connection, or NULL. */
static __always_inline struct holder *holder_of_connection(struct sock *sk)
{
	u64 inode = is_subflow(sk) ? socket_inode(sk) : 0;

	return inode ? bpf_map_lookup_elem(&mptcp_owners, &inode) : NULL;
}

/* Record a process that has this socket open, maybe with others. A listener is found by its address. */
static __always_inline void seed_mptcp(struct task_struct *task, u64 file, u32 fd, struct sock *sk)
{
	struct mptcp_sock *msk = (struct mptcp_sock *)sk;
	struct tcp_listener mine = {.inode = socket_inode(sk)};
	struct sock *first;

	if (!bpf_core_field_exists(msk->first))
		return;
	first = BPF_CORE_READ(msk, first);
	if (!first)
		return;
	hold(task, &mine.holder);
	mine.holder.owner.source = OWNER_SEEDED;
	if (!remember_connection(sk, &mine.holder, BPF_NOEXIST) ||
	    sk->__sk_common.skc_state != TCP_LISTEN)
		return;
	describe(task, file, fd, &mine.at);
	remember_listener(first, &mine, false);
}

#endif
