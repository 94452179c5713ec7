/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Differences between kernels that the programs bridge, each with the commit that made it. */
#ifndef CGNET_BASE_COMPAT_BPF_H
#define CGNET_BASE_COMPAT_BPF_H

#include "base/program.bpf.h"
#include "abi/owner.h"

#ifdef __TARGET_ARCH_arm64
/* Registers of a kprobe, as arch/arm64/include/uapi/asm/ptrace.h defines them; vmlinux.h has those of x86. */
struct user_pt_regs {
	u64 regs[31];
	u64 sp;
	u64 pc;
	u64 pstate;
};
#endif

/*
 * kernfs_node.id was a union of (ino, generation) and a number until Linux kernel commit 67c0496e87d1
 * "kernfs: convert kernfs_node->id from union kernfs_node_id to u64" (in v5.5). The test is for the member,
 * not for the union's type: libbpf searches the modules for a type that vmlinux lacks, which requires
 * CAP_SYS_ADMIN.
 */
struct kernfs_node___before_v55 {
	union {
		u64 id;
	} id;
} __attribute__((preserve_access_index));

static __always_inline u64 kernfs_id(const bool typed, struct kernfs_node *kn)
{
	struct kernfs_node___before_v55 *old = (void *)kn;

	if (bpf_core_field_exists(old->id.id)) {
		u64 id = 0;

		bpf_core_read(&id, sizeof(id), &old->id.id);
		return id;
	}
	return READ_AS(typed, kn, id);
}

/*
 * The slot of a v1 controller in css_set.subsys[] depends on the kernel's configuration. Only the running
 * kernel's BTF has it; /proc/cgroups is sorted by it, but lists enabled controllers only.
 */
enum cgroup_subsys_id___any {
	cpuset_cgrp_id___any,
	cpu_cgrp_id___any,
	cpuacct_cgrp_id___any,
	io_cgrp_id___any,
	memory_cgrp_id___any,
	devices_cgrp_id___any,
	freezer_cgrp_id___any,
	net_cls_cgrp_id___any,
	perf_event_cgrp_id___any,
	net_prio_cgrp_id___any,
	hugetlb_cgrp_id___any,
	pids_cgrp_id___any,
	rdma_cgrp_id___any,
	misc_cgrp_id___any,
};

/* The barrier keeps a value behind the test for its existence: see cgroup_id_in(). */
#define SUBSYS_SLOT(controller, name)                                        \
	case controller:                                                     \
		if (!bpf_core_enum_value_exists(enum cgroup_subsys_id___any, \
						name##_cgrp_id___any))       \
			return -1;                                           \
		barrier();                                                   \
		return bpf_core_enum_value(enum cgroup_subsys_id___any, name##_cgrp_id___any)

/* Slot of an enum cgroup_controller; -1 if this kernel has none. */
static __always_inline int subsys_slot(u32 controller)
{
	switch (controller) {
		SUBSYS_SLOT(CONTROLLER_CPUSET, cpuset);
		SUBSYS_SLOT(CONTROLLER_CPU, cpu);
		SUBSYS_SLOT(CONTROLLER_CPUACCT, cpuacct);
		SUBSYS_SLOT(CONTROLLER_BLKIO, io);
		SUBSYS_SLOT(CONTROLLER_MEMORY, memory);
		SUBSYS_SLOT(CONTROLLER_DEVICES, devices);
		SUBSYS_SLOT(CONTROLLER_FREEZER, freezer);
		SUBSYS_SLOT(CONTROLLER_NET_CLS, net_cls);
		SUBSYS_SLOT(CONTROLLER_PERF_EVENT, perf_event);
		SUBSYS_SLOT(CONTROLLER_NET_PRIO, net_prio);
		SUBSYS_SLOT(CONTROLLER_HUGETLB, hugetlb);
		SUBSYS_SLOT(CONTROLLER_PIDS, pids);
		SUBSYS_SLOT(CONTROLLER_RDMA, rdma);
		SUBSYS_SLOT(CONTROLLER_MISC, misc);
	}
	return -1;
}

/*
 * task_struct.start_boottime was real_start_time until Linux kernel commit cf25e24db61c "time: Rename
 * tsk->real_start_time to ->start_boottime" (in v5.5).
 */
struct task_struct___before_v55 {
	u64 real_start_time;
} __attribute__((preserve_access_index));

#define NSEC_PER_TICK 10000000ULL /* of USER_HZ, 100 on all architectures that support BPF */

/* Start time of a task's process, as in /proc/PID/stat. */
static __always_inline u64 start_of_process(const bool typed, struct task_struct *task)
{
	struct task_struct *leader = READ_AS(typed, task, group_leader);
	struct task_struct___before_v55 *old = (void *)leader;
	u64 start = 0;

	if (bpf_core_field_exists(leader->start_boottime))
		start = READ_AS(typed, leader, start_boottime);
	else
		bpf_core_read(&start, sizeof(start), &old->real_start_time);
	return start / NSEC_PER_TICK;
}

/*
 * sock.sk_cgrp_data was a tagged pointer until Linux kernel commit 8520e224f547 "bpf, cgroups: Fix cgroup
 * v2 fallback on v1/v2 mixed mode" (in v5.15): with a bit set it holds v1's class, or nothing.
 */
struct sock_cgroup_data___before_v515 {
	u64 val;
} __attribute__((preserve_access_index));

/* The v2 cgroup in which a socket was opened, or NULL. */
static __always_inline struct cgroup *socket_cgroup(struct sock *sk)
{
	struct sock_cgroup_data___before_v515 *old = (void *)&sk->sk_cgrp_data;
	u64 val = 0;

	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		return READ(sk, sk_cgrp_data.cgroup);
	if (bpf_core_field_exists(old->val))
		bpf_core_read(&val, sizeof(val), &old->val);
	return val & 3 ? NULL : (struct cgroup *)val;
}

/*
 * tcp_send_reset has a third argument, the reason, since Linux kernel commit b533fb9cf4f7 "rstreason: make it
 * work in trace world" (in v6.10).
 */
enum sk_rst_reason___any {
	SK_RST_REASON_NOT_SPECIFIED___any,
};

static __always_inline bool tells_rst_reason(void)
{
	return bpf_core_enum_value_exists(enum sk_rst_reason___any,
					  SK_RST_REASON_NOT_SPECIFIED___any);
}

/*
 * net.net_cookie is a number since Linux kernel commit 3d368ab87cf6 "net: initialize net->net_cookie at netns
 * setup" (in v5.12); before that, the kernel generates it on first use. 0 if there is none.
 */
static __always_inline u64 netns_cookie(const bool typed, struct net *net)
{
	if (bpf_core_field_exists(net->net_cookie))
		return READ_AS(typed, net, net_cookie);
	return 0;
}

static __always_inline u64 socket_netns_cookie(const bool typed, struct sock *sk)
{
	return netns_cookie(typed, READ_AS(typed, sk, __sk_common.skc_net.net));
}

/*
 * The kernel's clock of ticks can be read since Linux kernel commit 5576b991e9c1 "bpf: Add BPF_FUNC_jiffies64"
 * (in v5.6).
 */
enum bpf_func_id___any {
	BPF_FUNC_jiffies64___any = 118,
};

static __always_inline bool has_tick_clock(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id___any, BPF_FUNC_jiffies64___any);
}

#endif
