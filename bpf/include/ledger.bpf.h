/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ledger: who owns a socket. An entry is learnt where the owner is the current task, and kept by
 * socket, because later events of the socket run on top of a bystander.
 *
 * The includer says what else it keeps per socket: `struct ledger_private`. Both live in one entry,
 * so that an event costs one look-up.
 */
#ifndef CGNET_LEDGER_BPF_H
#define CGNET_LEDGER_BPF_H

#include "cgroup.bpf.h"
#include "transport.bpf.h"

#define PF_IO_WORKER 0x00000010

struct ledger_entry {
	u64 slot_key; /* what a slot is claimed for; 0: free, or an entry of the hash */
	struct owner owner;
	struct ledger_private private;
};

#include "slots.bpf.h"

/*
 * What an entry is found by. A cookie is never used again, and a socket that was never asked for one
 * needs no search. Kernels without the helper for it (Linux kernel commit c5dbb89fc2ac "bpf: Expose
 * bpf_get_socket_cookie to tracing programs", in v5.12) take the raw_tp programs, which go by
 * address: an entry ends before its socket does.
 */
static __always_inline u64 ledger_key(const bool typed, struct sock *sk)
{
	if (typed)
		return READ(sk, __sk_common.skc_cookie.counter);
	return (u64)sk;
}

/* The entry of a socket, or NULL. */
static __always_inline struct ledger_entry *ledger_find(const bool typed, struct sock *sk)
{
	u64 key = ledger_key(typed, sk);

	if (typed) {
		struct ledger_entry *entry = key ? slot_find(key) : NULL;

		if (likely(entry || !key || !ledger_displaced))
			return entry;
	}
	return bpf_map_lookup_elem(&ledger_hash, &key);
}

/* A new entry for a socket; owner and private part are the caller's to write. NULL is counted. */
static __always_inline struct ledger_entry *ledger_open(const bool typed, struct sock *sk)
{
	static const struct ledger_entry blank;
	u64 key = typed ? bpf_get_socket_cookie(sk) : (u64)sk;
	struct ledger_entry *entry;

	if (typed) {
		entry = slot_claim(key);
		if (likely(entry))
			return entry;
	}
	if (bpf_map_update_elem(&ledger_hash, &key, &blank, BPF_NOEXIST) == 0 && typed)
		__sync_fetch_and_add(&ledger_displaced, 1);
	entry = bpf_map_lookup_elem(&ledger_hash, &key);
	if (!entry)
		count_lost(LOST_LEDGER);
	return entry;
}

/* Nothing more is wanted of this socket. Its entry is anybody's from now on. */
static __always_inline void ledger_done(const bool typed, struct sock *sk,
					struct ledger_entry *entry)
{
	u64 key = ledger_key(typed, sk);

	if (typed && likely(entry->slot_key))
		slot_free(entry);
	else if (bpf_map_delete_elem(&ledger_hash, &key) == 0 && typed)
		__sync_fetch_and_add(&ledger_displaced, -1);
}

/*
 * Behind the NUL of a command's name lies the rest of the one before, until Linux kernel commit
 * 06c5088aeedd "fs/exec: replace strlcpy with strscpy_pad in __set_task_comm" (in v5.17): names are
 * compared and counted as 16 bytes.
 */
static __always_inline void zero_behind_name(char *comm)
{
	u64 *words = (u64 *)comm;
	u64 ends = (words[0] - 0x0101010101010101) & ~words[0] & 0x8080808080808080;

	if (ends) {
		words[0] &= (ends & -ends) - 1;
		words[1] = 0;
		return;
	}
	ends = (words[1] - 0x0101010101010101) & ~words[1] & 0x8080808080808080;
	if (ends)
		words[1] &= (ends & -ends) - 1;
}

/*
 * io_uring's workers are threads of the owner, but named iou-wrk-PID or iou-sqp-PID: the process is
 * called as its leader is. They are user threads since Linux kernel commit 3bfe6106693b "io-wq:
 * fork worker threads from original task" (in v5.12), kernel threads without an owner before.
 */
static __always_inline void learn_comm(const bool typed, struct task_struct *task,
				       struct owner *owner)
{
	struct task_struct *named = task;

	if (unlikely(READ(task, flags) & PF_IO_WORKER))
		named = READ(task, group_leader);
	READ_ARRAY(owner->comm, named, comm);
	zero_behind_name(owner->comm);
}

/* Take a task as the owner: the current one where the kernel runs for the socket's user. */
static __always_inline void learn(const bool typed, struct task_struct *task, struct owner *owner)
{
	struct cred *cred = (struct cred *)READ(task, cred);

	__builtin_memset(owner, 0, sizeof(*owner));
	owner->hierarchy = cfg.hierarchy[0].id;
	if (unlikely(is_kernel_thread(typed, task)))
		return;
	owner->pid = READ(task, tgid);
	owner->uid = READ(cred, uid.val);
	owner->cgroup_id = task_cgroup_id(typed, task, cfg.hierarchy[0].controller);
	owner->source = OWNER_LEARNED;
	learn_comm(typed, task, owner);
}

#endif
