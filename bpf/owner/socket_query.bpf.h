/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Queries of user space, one at a time, for kernels without iterators. User space writes a query into the map
 * and gives its thread a unique name; the tracepoint of the rename runs a program, in the querying process.
 *
 * The including file defines the answer. Counterpart of src/cgnet/owners/socket_queries.py.
 */
#ifndef CGNET_OWNER_SOCKET_QUERY_BPF_H
#define CGNET_OWNER_SOCKET_QUERY_BPF_H

#include "owner/ledger.bpf.h"

CROSSES_TO_USER_SPACE(question);

#define PIDTYPE_TGID \
	1 /* linux/pid.h: PIDTYPE_TGID; the first task of this type in a `struct pid` is the main thread */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct question);
} question SEC(".maps");

static __always_inline struct file *file_of(struct task_struct *task, s32 fd)
{
	struct fdtable *fdt =
		BPF_CORE_READ(task, files, fdt); /* a process that has exited has no files */
	struct file **files, *file = NULL;

	if (!fdt || fd < 0 || fd >= (s32)BPF_CORE_READ(fdt, max_fds))
		return NULL;
	files = BPF_CORE_READ(fdt, fd);
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	return file;
}

/* Process whose /proc/PID the current process has open. */
static __always_inline struct task_struct *process_of(const struct question *asked)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct file *folder = file_of(task, asked->process);
	void *node = folder ? BPF_CORE_READ(folder, f_inode) : NULL;
	struct proc_inode *inode;
	struct pid *pid;

	if (!node)
		return NULL;
	inode = node - bpf_core_field_offset(struct proc_inode, vfs_inode);
	pid = BPF_CORE_READ(inode, pid);
	node = pid ? BPF_CORE_READ(pid, tasks[PIDTYPE_TGID].first) : NULL;
	if (!node)
		return NULL;
	return node - bpf_core_field_offset(struct task_struct, pid_links[PIDTYPE_TGID]);
}

/* Socket of a file, if it points back to the file; NULL if the file is another one by now. */
static __always_inline struct sock *socket_of(const struct question *asked)
{
	struct task_struct *task = process_of(asked);
	struct file *file = task ? file_of(task, asked->fd) : NULL;
	struct socket *socket = file ? BPF_CORE_READ(file, private_data) : NULL;

	if (!socket || BPF_CORE_READ(socket, file) != file)
		return NULL;
	return BPF_CORE_READ(socket, sk);
}

/* Current query, if `name` is that of the querying thread; else NULL. */
static __always_inline struct question *question_of(const char *name)
{
	struct question *asked = bpf_map_lookup_elem(&question, &(u32){0});

	return asked && is_asking(name, asked->name) ? asked : NULL;
}

#endif
