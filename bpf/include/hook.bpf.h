/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One body, two entry points.
 *
 * A body takes `const bool typed` and is inlined into an entry per hook kind. With tp_btf (typed)
 * the verifier knows the type of every pointer and a field is one load; with raw_tp each read is a
 * helper call. `typed` is a constant in each entry, so only one side of READ is left in its code.
 */
#ifndef CGNET_HOOK_BPF_H
#define CGNET_HOOK_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "events.h"

/* What is rare is moved out of the way: most of a program's cost is code that isn't in the cache. */
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* src->field; needs `typed` in scope. */
#define READ(src, field)                                                                       \
	({                                                                                     \
		typeof((src)->field) read_value;                                               \
		if (typed)                                                                     \
			read_value = (src)->field;                                             \
		else                                                                           \
			bpf_core_read((void *)&read_value, sizeof(read_value), &(src)->field); \
		read_value;                                                                    \
	})

/* The same for a member that is an array: into `to`, of the same size. */
#define READ_ARRAY(to, src, field)                                      \
	({                                                              \
		if (typed)                                              \
			__builtin_memcpy(to, (src)->field, sizeof(to)); \
		else                                                    \
			bpf_core_read(to, sizeof(to), &(src)->field);   \
	})

/* The same for a member that is, or once was, a bitfield. */
#define READ_BITFIELD(src, field) \
	(typed ? BPF_CORE_READ_BITFIELD(src, field) : BPF_CORE_READ_BITFIELD_PROBED(src, field))

/*
 * clang writes no BTF for a struct that is only used through local pointers, and user space
 * compares its layouts with the object's BTF. This makes a struct part of it.
 */
#define CROSSES_TO_USER_SPACE(name) const struct name *btf_of_##name __attribute__((unused))

/*
 * The kernel doesn't enter a program that is running on the CPU already (Linux kernel commit
 * 05b24ff9b2cf "bpf: Prevent bpf program recursion for raw tracepoint probes", in v6.1). What a
 * softirq brings while it interrupts the program of a process is not seen: 3 % of 10,000 time-outs on
 * a busy host that measures its programs, 0.1 % on one that doesn't (6.18). So what softirqs bring
 * goes to two programs in a row. The process can be in one of them only, and the other does the
 * work: a body must find out when it was done before.
 */
#define FIRST true
#define SECOND false

/* On this CPU the last two that a first program did: the process's, and a softirq's on top of it. */
struct done {
	u64 last;
	u64 before;
	u64 cgroup; /* the last one that a filter looked at: see select.bpf.h */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct done);
} done SEC(".maps");

/*
 * Whether the second program comes after the first. A process, which has the socket's lock, interrupts
 * nobody.
 */
static __always_inline bool is_done(const bool typed, const bool first, struct sock *sk)
{
	struct done *ours = bpf_map_lookup_elem(&done, &(u32){0});

	if (!ours)
		return false;
	if (first) {
		ours->before = READ(sk, sk_lock.owned) ? 0 : ours->last;
		ours->last = (u64)sk;
		return false;
	}
	if (ours->last == (u64)sk) {
		ours->last = ours->before;
		ours->before = 0;
		return true;
	}
	if (ours->before != (u64)sk)
		return false;
	ours->last = ours->before = 0; /* the softirq's second wasn't entered */
	return true;
}

/* A program on inet_sock_set_state, whose body takes (typed, first, sk, oldstate, newstate). */
#define ON_SET_STATE(name, hook, body, typed, first)                                       \
	SEC(hook "/inet_sock_set_state")                                                   \
	int BPF_PROG(name, struct sock *sk, int oldstate, int newstate)                    \
	{                                                                                  \
		return (typed) ? body(typed, first, sk, oldstate, newstate)                \
			       : SENDING(ctx, body(typed, first, sk, oldstate, newstate)); \
	}

/* One for each way, and twice. */
#define SET_STATE_PROGRAMS(name, body)                                 \
	ON_SET_STATE(name##_typed, "tp_btf", body, true, FIRST)        \
	ON_SET_STATE(name##_typed_again, "tp_btf", body, true, SECOND) \
	ON_SET_STATE(name##_raw, "raw_tp", body, false, FIRST)         \
	ON_SET_STATE(name##_raw_again, "raw_tp", body, false, SECOND)

const volatile struct config cfg SEC(".rodata.config");

static __always_inline struct task_struct *current_task(const bool typed)
{
	if (typed)
		return bpf_get_current_task_btf();
	return (struct task_struct *)bpf_get_current_task();
}

#define PF_KTHREAD 0x00200000

/* A kernel thread owns no socket; it runs what it is given. */
static __always_inline bool is_kernel_thread(const bool typed, struct task_struct *task)
{
	return READ(task, flags) & PF_KTHREAD;
}

static __always_inline struct tcp_sock *tcp_sock_of(const bool typed, struct sock *sk)
{
	if (typed)
		return bpf_skc_to_tcp_sock(sk);
	return (struct tcp_sock *)sk;
}

#endif
