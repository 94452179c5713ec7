/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ledger: who owns a socket. One entry per socket, learnt where the owner is the current task
 * and kept with the socket, because later events of the socket run on top of a bystander.
 *
 * The includer says what else it keeps per socket: `struct ledger_private`. Both live in one entry,
 * so that an event costs one look-up.
 *
 * Two stores, chosen at load together with the hook: tracing programs (typed) use socket storage,
 * which the kernel frees with the socket and copies from a listener to its children; raw_tp
 * programs may not, and use a bounded hash by address, whose entries are removed by ledger_done().
 */
#ifndef CGNET_LEDGER_BPF_H
#define CGNET_LEDGER_BPF_H

#include "cgroup.bpf.h"
#include "transport.bpf.h"

#define PF_IO_WORKER 0x00000010

struct ledger_entry {
	struct owner owner;
	struct ledger_private private;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct ledger_entry);
} ledger_storage SEC(".maps");

/* Preallocated: kernels before 6.1 warn when a tracing program allocates hash entries. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, struct ledger_entry);
} ledger_hash SEC(".maps");

static __always_inline struct ledger_entry *ledger_find(const bool typed, struct sock *sk)
{
	u64 key = (u64)sk;

	if (typed)
		return bpf_sk_storage_get(&ledger_storage, sk, NULL, 0);
	return bpf_map_lookup_elem(&ledger_hash, &key);
}

/* The entry of a socket, made if there is none. NULL is counted as lost. */
static __always_inline struct ledger_entry *ledger_open(const bool typed, struct sock *sk)
{
	static const struct ledger_entry blank;
	struct ledger_entry *entry;
	u64 key = (u64)sk;

	if (typed) {
		entry = bpf_sk_storage_get(&ledger_storage, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	} else {
		bpf_map_update_elem(&ledger_hash, &key, &blank, BPF_ANY);
		entry = bpf_map_lookup_elem(&ledger_hash, &key);
	}
	if (!entry)
		count_lost(LOST_LEDGER);
	return entry;
}

/* Nothing more is wanted of this socket. Socket storage goes with the socket, at no cost. */
static __always_inline void ledger_done(const bool typed, struct sock *sk)
{
	u64 key = (u64)sk;

	if (!typed)
		bpf_map_delete_elem(&ledger_hash, &key);
}

/*
 * io_uring's workers are threads of the owner, but named iou-wrk-PID or iou-sqp-PID: the process is
 * called as its leader is. They are user threads since Linux kernel commit 3bfe6106693b "io-wq:
 * fork worker threads from original task" (in v5.12), kernel threads without an owner before.
 */
static __always_inline void learn_comm(const bool typed, struct task_struct *task,
				       struct owner *owner)
{
	if (READ(task, flags) & PF_IO_WORKER) {
		struct task_struct *leader = READ(task, group_leader);

		bpf_core_read_str(owner->comm, sizeof(owner->comm), &leader->comm);
	} else {
		bpf_get_current_comm(owner->comm, sizeof(owner->comm));
	}
}

/* Take the current task as the owner. Call it where the kernel runs for the socket's user. */
static __always_inline void learn(const bool typed, struct owner *owner)
{
	struct task_struct *task = current_task(typed);

	__builtin_memset(owner, 0, sizeof(*owner));
	owner->hierarchy = cfg.hierarchy[0].id;
	if (in_kernel_thread(typed))
		return;
	owner->pid = bpf_get_current_pid_tgid() >> 32;
	owner->uid = bpf_get_current_uid_gid();
	owner->cgroup_id = task_cgroup_id(typed, task, cfg.hierarchy[0].controller);
	owner->source = OWNER_LEARNED;
	learn_comm(typed, task, owner);
}

#endif
