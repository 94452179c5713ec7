/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Listeners, and the owners of their children. The kernel accepts a connection in softirq, where its owner
 * does not run: the child inherits the owner of its listener, recorded at listen() and looked up by local
 * address; src/cgnet/owners/open_sockets.py writes the listeners that were open before, for programs without
 * socket storage.
 *
 * Several sockets may listen at one address (SO_REUSEPORT, SO_BINDTODEVICE). These are in socket storage,
 * which the kernel copies to their children. Others are not: the copy is allocated and freed for each
 * connection.
 */
#ifndef CGNET_OWNER_LISTENERS_BPF_H
#define CGNET_OWNER_LISTENERS_BPF_H

#include "owner/ledger.bpf.h"

CROSSES_TO_USER_SPACE(holder);
CROSSES_TO_USER_SPACE(listener_key);
CROSSES_TO_USER_SPACE(descriptor);
CROSSES_TO_USER_SPACE(tcp_listener);
CROSSES_TO_USER_SPACE(listener_fd);

/* Listeners by address. The entry of several at one address holds their common values. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct listener_key);
	__type(value, struct tcp_listener);
} listeners SEC(".maps");

/* Listeners by their sockets' inodes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct tcp_listener);
} listening SEC(".maps");

#define NO_FD (-1)
#define FDS_TRIED 64 /* user space finds higher ones, a little later */

/* File descriptor of a file in the current task's files, NO_FD if it is not among the first. */
OUT_OF_LINE int find_fd(u64 file)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	u64 *files = (u64 *)BPF_CORE_READ(fdt, fd), found = 0;
	u32 count = BPF_CORE_READ(fdt, max_fds);

	for (u32 fd = 0; fd < FDS_TRIED; fd++) {
		if (fd >= count)
			break;
		bpf_probe_read_kernel(&found, sizeof(found), files + fd);
		if (found == file)
			return fd;
	}
	return NO_FD;
}

/*
 * Location of a file in a process. The main thread represents the process, unless a thread has files of its
 * own (unshare(2), CLONE_FILES).
 */
static __always_inline void describe(struct task_struct *task, u64 file, s32 fd,
				     struct descriptor *at)
{
	struct task_struct *leader = READ(task, group_leader);

	if (READ(leader, files) == READ(task, files))
		task = leader;
	at->task = (u64)task;
	at->file = file;
	at->start = start_of_process(TYPED, task);
	at->fd = fd;
}

/*
 * Whether a process is alive and has a file open at the same descriptor as before. Its task may be freed: the
 * values read there are compared with values that only that process has.
 */
OUT_OF_LINE int has_still(const struct descriptor *at, u32 pid)
{
	struct task_struct *task;
	u64 file = 0, *files;
	struct fdtable *fdt;
	s32 fd;

	if (!at || !at->task)
		return true;
	task = (struct task_struct *)at->task;
	fd = at->fd;
	if ((u32)BPF_CORE_READ(task, tgid) != pid || start_of_process(false, task) != at->start)
		return false;
	fdt = BPF_CORE_READ(task, files, fdt); /* a process that has exited has no files */
	if (!fdt)
		return false;
	if (fd < 0 || !at->file)
		return true;
	if (fd >= (s32)BPF_CORE_READ(fdt, max_fds))
		return false;
	files = (u64 *)BPF_CORE_READ(fdt, fd);
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	return file == at->file;
}

/* NULL if the known owner no longer has the listener: src/cgnet/owners/listener_handovers.py finds the new one. */
static __always_inline struct holder *holder_now(struct tcp_listener *listener)
{
	if (!listener || !has_still(&listener->at, listener->holder.owner.pid))
		return NULL;
	return &listener->holder;
}

static __always_inline void key_of_listener(const bool typed, struct sock *sk,
					    struct listener_key *key)
{
	u32 *words = (u32 *)key->address;
	struct inet_sock *inet = (struct inet_sock *)sk;

	key->netns = netns_of(typed, sk);
	key->port = READ_AS(typed, sk, __sk_common.skc_num);
	if (!key->port) /* at TCP_CLOSE */
		key->port = bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
	if (READ_AS(typed, sk, __sk_common.skc_family) == AF_INET6) {
		struct in6_addr address = READ_AS(typed, sk, __sk_common.skc_v6_rcv_saddr);

		store_v6(key->address, &address);
	} else {
		words[3] = READ_AS(typed, sk, __sk_common.skc_rcv_saddr);
		if (words[3])
			words[2] = bpf_htonl(0xffff);
	}
}

static __always_inline bool same_owner(const struct owner *one, const struct owner *other)
{
	return one->cgroup_id == other->cgroup_id && one->pid == other->pid;
}

/* Whether a socket is the only possible listener at its address. Typed programs only. */
static __always_inline bool listens_alone(struct sock *sk)
{
	struct listener_key key = {};

	if (BPF_CORE_READ_BITFIELD(sk, __sk_common.skc_reuseport) ||
	    sk->__sk_common.skc_bound_dev_if)
		return false;
	key_of_listener(TYPED, sk, &key);
	return key.port && !bpf_map_lookup_elem(&listeners, &key);
}

/*
 * If the owners at one address differ, the owner of a child is unknown. The first listener, if not in
 * storage, keeps its children: all later ones are in storage, and their children inherit their owner.
 */
static __always_inline void remember_by_address(struct tcp_listener *mine)
{
	struct tcp_listener *known = bpf_map_lookup_elem(&listeners, &mine->place);

	if (known && known->holder.alone) {
		__sync_fetch_and_add(&known->holder.sockets, 1);
		return;
	}
	if (known) {
		mine->holder.sockets = known->holder.sockets + 1;
		mine->inode = 0;
		if (!same_owner(&known->holder.owner, &mine->holder.owner)) {
			__builtin_memset(&mine->holder.owner, 0, sizeof(mine->holder.owner));
			__builtin_memset(&mine->at, 0, sizeof(mine->at));
			mine->holder.wanted = unknown_owner_passes();
		}
	}
	if (bpf_map_update_elem(&listeners, &mine->place, mine, BPF_ANY))
		count_lost(LOST_LEDGER);
}

/* Record a listener by its inode and by its address. */
static __always_inline void remember_listener(struct sock *sk, struct tcp_listener *mine,
					      bool alone)
{
	__builtin_memset(&mine->place, 0, sizeof(mine->place));
	key_of_listener(false, sk, &mine->place);
	if (!mine->place.port) /* not bound: it gets a port later */
		return;
	mine->holder.sockets = 1;
	mine->holder.alone = alone;
	if (mine->inode && bpf_map_update_elem(&listening, &mine->inode, mine, BPF_ANY))
		count_lost(LOST_LEDGER);
	remember_by_address(mine);
}

/* Owner of the listener at an address, or at the wildcard address; NULL if unknown. */
static __always_inline struct holder *listener_at(struct listener_key *key)
{
	struct tcp_listener *found = bpf_map_lookup_elem(&listeners, key);

	if (!found) {
		__builtin_memset(key->address, 0, sizeof(key->address));
		found = bpf_map_lookup_elem(&listeners, key);
	}
	return holder_now(found);
}

static __always_inline struct holder *listener_by_address(const bool typed, struct sock *child)
{
	struct listener_key key = {};

	key_of_listener(typed, child, &key);
	return listener_at(&key);
}

/* Owner of a listener in storage, from the entry that its children inherit. */
static __always_inline struct holder *listener_by_inode(const struct ledger_entry *entry)
{
	u64 inode = entry->listener;

	return holder_now(bpf_map_lookup_elem(&listening, &inode));
}

/*
 * Scratch buffer, too large for the stack of programs that have a record there. A CPU runs one such program
 * at a time, in process context.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct tcp_listener);
} new_listener SEC(".maps");

/* Runs in the listening process. */
static __always_inline void learn_listener(struct sock *sk)
{
	struct tcp_listener *mine = bpf_map_lookup_elem(&new_listener, &(u32){0});
	bool alone = TYPED && listens_alone(sk);
	struct ledger_entry *entry;
	u64 file;

	if (!mine)
		return;
	mine->inode = socket_inode(sk);
	file = (u64)BPF_CORE_READ(sk, sk_socket, file);
	describe(current_task(), file, file ? find_fd(file) : NO_FD, &mine->at);
	if (TYPED) {
		entry = alone ? ledger_open_anew(sk) : ledger_store_anew(sk);
		if (!entry)
			return;
		ledger_learn_current(entry);
		entry->listens = 1;
		entry->listener = mine->inode;
		mine->holder = entry->holders[RANK_OPENED];
	} else {
		hold(current_task(), &mine->holder);
	}
	remember_listener(sk, mine, alone);
}

static __always_inline void forget_listener(struct sock *sk)
{
	struct listener_key key = {};
	u64 inode = socket_inode(sk);
	struct tcp_listener *known;

	bpf_map_delete_elem(&listening, &inode);
	key_of_listener(TYPED, sk, &key);
	known = bpf_map_lookup_elem(&listeners, &key);
	if (known && known->holder.sockets > 1)
		__sync_fetch_and_add(&known->holder.sockets, -1);
	else if (known)
		bpf_map_delete_elem(&listeners, &key);
}

#define SOCKET_IS_DEAD (1 << SOCK_DEAD)

/* Whether a child waits for accept(): it has no socket yet. A closed one has none either, but is SOCK_DEAD. */
static __always_inline bool is_new_child(struct sock *sk)
{
	return !READ(sk, sk_socket) && !(READ(sk, __sk_common.skc_flags) & SOCKET_IS_DEAD);
}

/* Owner of a child's listener, or NULL. */
static __always_inline struct holder *listener_of(struct sock *child)
{
	struct ledger_entry *entry = TYPED ? ledger_find(TYPED, child) : NULL;

	if (entry && entry->listens)
		return listener_by_inode(entry);
	return TYPED && !is_new_child(child) ? NULL : listener_by_address(TYPED, child);
}

#endif
