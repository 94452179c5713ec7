/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sockets that were open before the start: their owners are the processes that have them among their files.
 * After the programs are attached, an iterator visits all files once, and fills in blank entries only.
 *
 * Without socket storage user space scans /proc, and the programs find its results by the socket's inode.
 *
 * The including file may select sockets by SEEDED_STATES, as bits of TCP states; by default all that are open.
 * Connections of MPTCP are seeded in any case: they may get further subflows.
 */
#ifndef CGNET_OWNER_OPEN_SOCKETS_BPF_H
#define CGNET_OWNER_OPEN_SOCKETS_BPF_H

#include "owner/mptcp.bpf.h"

#ifndef SEEDED_STATES
#define SEEDED_STATES (~(1 << TCP_CLOSE))
#endif

/* Only user space writes to this map: no program allocates. */
RAW_ONLY struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, u64);
	__type(value, struct holder);
} seeds SEC(".maps");

/* Owner that user space found for a socket that some process has open, or NULL. */
static __always_inline struct holder *seed_of(struct sock *sk)
{
	u64 inode = socket_inode(sk);

	return inode ? bpf_map_lookup_elem(&seeds, &inode) : NULL;
}

struct task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

/* A listener is also recorded by address, for its children that wait for accept() already. */
static __always_inline void seed(struct task_struct *task, u64 file, u32 fd, struct sock *sk)
{
	struct tcp_listener mine = {.inode = socket_inode(sk)};
	struct ledger_entry *entry = ledger_find(TYPED, sk);
	bool listens = sk->__sk_common.skc_state == TCP_LISTEN;
	bool alone = !entry && listens && listens_alone(sk);

	if (!entry)
		entry = alone ? ledger_add(sk) : ledger_store(sk);
	if (!entry)
		return;
	entry->listens = listens;
	if (!ledger_learn(entry, task, OWNER_SEEDED) || !listens)
		return;
	entry->listener = mine.inode;
	mine.holder = entry->holders[RANK_OPENED];
	describe(task, file, fd, &mine.at);
	remember_listener(sk, &mine, alone);
}

#if TYPED
SEC("iter/task_file")
int ledger_seed(struct task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct socket *socket;
	struct sock *sk;

	if (!task || !ctx->file)
		return 0;
	socket = bpf_sock_from_file(ctx->file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || sk->__sk_common.skc_state == TCP_CLOSE)
		return 0;
	if (BPF_CORE_READ_BITFIELD(sk, sk_protocol) == IPPROTO_MPTCP)
		seed_mptcp(task, (u64)ctx->file, ctx->fd, sk);
	else if (is_tcp(sk) && 1 << sk->__sk_common.skc_state & SEEDED_STATES)
		seed(task, (u64)ctx->file, ctx->fd, sk);
	return 0;
}

/* Report the processes that have listeners open: user space asks when one may have been handed over. */
SEC("iter/task_file")
int ledger_listeners(struct task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct listener_fd found = {};
	struct socket *socket;
	struct sock *sk;

	if (!task || !ctx->file)
		return 0;
	socket = bpf_sock_from_file(ctx->file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || sk->__sk_common.skc_state != TCP_LISTEN)
		return 0;
	found.inode = socket_inode(sk);
	found.pid = task->tgid;
	describe(task, (u64)ctx->file, ctx->fd, &found.at);
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}
#endif

#endif
