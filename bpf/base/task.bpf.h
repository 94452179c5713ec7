/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Task recorded as the owner of a socket. */
#ifndef CGNET_BASE_TASK_BPF_H
#define CGNET_BASE_TASK_BPF_H

#include "base/task_cgroup.bpf.h"

CONFIG(owner_config);

#define PF_IO_WORKER 0x00000010

/*
 * The bytes after the NUL of a command's name are left over from the previous name, until Linux kernel commit
 * 06c5088aeedd "fs/exec: replace strlcpy with strscpy_pad in __set_task_comm" (in v5.17): names are compared
 * and counted as 16 bytes.
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
 * io_uring's workers are threads of the owner, but named iou-wrk-PID or iou-sqp-PID: take the name of their
 * leader. They are user threads since Linux kernel commit 3bfe6106693b "io-wq: fork worker threads from
 * original task" (in v5.12), and kernel threads without an owner before.
 */
static __always_inline void learn_comm(struct task_struct *task, struct owner *owner)
{
	struct task_struct *named = task;

	if (unlikely(READ(task, flags) & PF_IO_WORKER))
		named = READ(task, group_leader);
	READ_ARRAY(owner->comm, named, comm);
	zero_behind_name(owner->comm);
}

/* Record a task as the owner: the current task where the kernel runs for the socket's user. */
static __always_inline void learn(struct task_struct *task, struct owner *owner)
{
	struct cred *cred = (struct cred *)READ(task, cred);

	__builtin_memset(owner, 0, sizeof(*owner));
	owner->hierarchy = owner_config.hierarchy[0].id;
	if (unlikely(is_kernel_thread(task)))
		return;
	owner->pid = READ(task, tgid);
	owner->uid = READ(cred, uid.val);
	owner->cgroup_id = task_cgroup_id(TYPED, task, owner_config.hierarchy[0].controller);
	owner->source = OWNER_LEARNED;
	learn_comm(task, owner);
}

/*
 * Whether the current thread takes the name that a query of user space has: it is unique. `given` is the
 * argument of the tracepoint task_rename.
 */
static __always_inline bool is_asking(const char *given, const u64 *name)
{
	u64 words[CGNET_COMM_LEN / sizeof(u64)] = {};

	if (!name[0])
		return false;
	bpf_probe_read_kernel(words, CGNET_COMM_LEN - 1, given); /* the kernel writes no more */
	return words[0] == name[0] && words[1] == name[1];
}

#endif
