/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Processes that have sockets open: one pass over all files, in all namespaces. */
#ifndef CGNET_SOCKETS_HOLDERS_BPF_H
#define CGNET_SOCKETS_HOLDERS_BPF_H

#include "base/flow.bpf.h"
#include "sockets/query.bpf.h"

#define S_IFMT 0170000
#define S_IFSOCK 0140000

/* Owner of the files that come next: most processes have several. */
struct visited_task {
	u64 task;
	u32 listing;
	u32 pad;
	struct holder holder;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct visited_task);
} visited_task SEC(".maps");

static __always_inline struct holder *holder_of_files(struct task_struct *task,
						      const struct socket_query *asked)
{
	struct visited_task *visited = bpf_map_lookup_elem(&visited_task, &(u32){0});
	struct owner owner;

	if (!visited)
		return NULL;
	if (visited->task == (u64)task && visited->listing == asked->listing)
		return &visited->holder;
	learn(task, &owner);
	visited->task = (u64)task;
	visited->listing = asked->listing;
	__builtin_memset(&visited->holder, 0, sizeof(visited->holder));
	visited->holder.wanted = owner_passes(task, &owner);
	if (owner.source)
		owner.source = OWNER_SEEDED;
	visited->holder.owner = owner;
	return &visited->holder;
}

static __always_inline void remember_sharer(const struct socket_query *asked, u64 inode,
					    const struct owner *owner)
{
	struct sharer_key key = {.inode = inode, .pid = owner->pid, .listing = asked->listing};

	if (bpf_map_update_elem(&sharers, &key, owner, BPF_ANY))
		count_no_room(NO_ROOM_SHARERS);
}

static __always_inline void hold_socket(const struct socket_query *asked, u64 inode,
					const struct holder *holder)
{
	struct held_socket *known = held_now(asked, inode);
	struct held_socket first = {};

	if (!known) {
		first.holder = *holder;
		first.listing = asked->listing;
		first.processes = 1;
		first.last_pid = holder->owner.pid;
		if (bpf_map_update_elem(&held, &inode, &first, BPF_ANY))
			count_no_room(NO_ROOM_HELD);
		return;
	}
	if (known->last_pid == holder->owner.pid)
		return;
	if (known->processes == 1)
		remember_sharer(asked, inode, &known->holder.owner);
	remember_sharer(asked, inode, &holder->owner);
	known->last_pid = holder->owner.pid;
	known->processes += 1;
	if (!known->holder.wanted && holder->wanted)
		known->holder = *holder;
}

/* A subflow of MPTCP has the inode of its connection's file. */
static __always_inline bool is_tcp_socket(struct sock *sk)
{
	u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	u32 protocol = BPF_CORE_READ_BITFIELD_PROBED(sk, sk_protocol);

	return (family == AF_INET || family == AF_INET6) &&
	       (protocol == IPPROTO_TCP || protocol == (u16)IPPROTO_MPTCP);
}

struct task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

/*
 * Kernels visit the files of threads that share them with their process once since Linux kernel commit
 * 203d7b054fc7 "bpf: Avoid iterating duplicated files for task_file iterator" (in v5.10).
 */
SEC("iter/task_file")
int holders(struct task_file *ctx)
{
	const struct socket_query *asked = current_query();
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct holder *holder;
	struct inode *inode;
	struct socket *socket;
	struct sock *sk;

	if (!task || !file || !asked)
		return 0;
	if (task != task->group_leader && task->files == task->group_leader->files)
		return 0;
	inode = file->f_inode;
	if ((inode->i_mode & S_IFMT) != S_IFSOCK)
		return 0;
	socket = file->private_data;
	sk = BPF_CORE_READ(socket, sk);
	if (!sk || !is_tcp_socket(sk))
		return 0;
	holder = holder_of_files(task, asked);
	if (holder)
		hold_socket(asked, inode->i_ino, holder);
	return 0;
}

#endif
