/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One source, two objects.
 *
 * Each file is compiled twice. With TYPED=1 its programs are at tp_btf: the verifier knows the type of every
 * pointer, and a field is one load. With TYPED=0 they are at raw_tp, where each read is a helper call, and
 * use nothing that a kernel 5.4 lacks. Programs at functions and at system calls are in an object of their
 * own, with TYPED=0, which runs beside either one and shares its maps: its source defines AT_FUNCTIONS.
 */
#ifndef CGNET_BASE_PROGRAM_BPF_H
#define CGNET_BASE_PROGRAM_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#ifndef TYPED
#error "say which object this is for: -DTYPED=1 or -DTYPED=0"
#endif

/*
 * Prefixes for the definition of a map or a variable that not all objects have: typed, raw, or raw and at
 * functions. In the others, only code that is compiled away refers to it.
 */
#if TYPED
#define TYPED_ONLY
#define UNTYPED_ONLY extern
#else
#define TYPED_ONLY extern
#define UNTYPED_ONLY
#endif
#if TYPED || defined(AT_FUNCTIONS)
#define RAW_ONLY extern
#else
#define RAW_ONLY
#endif

#define NSEC_PER_USEC 1000ULL
#define USEC_PER_SEC 1000000ULL
#define NSEC_PER_MSEC 1000000ULL

/* Move rare code out of line: most of a program's cost is instruction cache misses. */
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* src->field: by a load if `typed`, else by a helper. */
#define READ_AS(typed, src, field)                                                             \
	({                                                                                     \
		typeof((src)->field) read_value;                                               \
		if (typed)                                                                     \
			read_value = (src)->field;                                             \
		else                                                                           \
			bpf_core_read((void *)&read_value, sizeof(read_value), &(src)->field); \
		read_value;                                                                    \
	})

/* The same for an array member: copy it into `to`, of the same size. */
#define READ_ARRAY_AS(typed, to, src, field)                            \
	({                                                              \
		if (typed)                                              \
			__builtin_memcpy(to, (src)->field, sizeof(to)); \
		else                                                    \
			bpf_core_read(to, sizeof(to), &(src)->field);   \
	})

/* The same for a member that is, or once was, a bitfield. */
#define READ_BITFIELD_AS(typed, src, field) \
	((typed) ? BPF_CORE_READ_BITFIELD(src, field) : BPF_CORE_READ_BITFIELD_PROBED(src, field))

/*
 * Read a field as this object's programs do. A body that typed programs also call with pointers that the
 * verifier does not know takes `const bool typed`, and reads by READ_AS.
 */
#define READ(src, field) READ_AS(TYPED, src, field)
#define READ_ARRAY(to, src, field) READ_ARRAY_AS(TYPED, to, src, field)
#define READ_BITFIELD(src, field) READ_BITFIELD_AS(TYPED, src, field)

/*
 * clang emits no BTF for a struct that is only used through local pointers, and user space compares its
 * layouts with the object's BTF. This macro adds a struct to it.
 */
#define CROSSES_TO_USER_SPACE(name) const struct name *btf_of_##name __attribute__((unused))

/*
 * Constants of a subject, a variable with the name of its struct: user space sets it by that name. All of an
 * object's are in one section, for each section is a map to create. A header repeats those that it reads.
 */
#define CONFIG(name) const volatile struct name name SEC(".rodata.config")

/*
 * The kernel does not enter a program that is already running on the CPU (Linux kernel commit 05b24ff9b2cf
 * "bpf: Prevent bpf program recursion for raw tracepoint probes", in v6.1). Events in a softirq that
 * interrupts the program of a process are missed: 3 % of 10,000 time-outs on a busy host that measures its
 * programs, 0.1 % on one that does not (6.18). So softirq events go to two programs in sequence. The process
 * can be in only one of them, and the other does the work: a body must detect that the work is done already.
 */
#define FIRST true
#define SECOND false

/* Last two sockets, per CPU, that a first program handled: the process's, and a softirq's on top of it. */
struct done {
	u64 last;
	u64 before;
	u64 cgroup; /* last one that a filter checked: see filter/filter.bpf.h */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct done);
} done SEC(".maps");

/*
 * Whether the first program has handled the event that the second one gets. A process, which has the socket's
 * lock, interrupts no other program.
 */
static __always_inline bool is_done(const bool first, struct sock *sk)
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
	ours->last = ours->before = 0; /* the softirq's second program was not entered */
	return true;
}

/*
 * Function that the verifier of typed programs walks once, and not for each path that leads to its calls: a
 * global function. These take numbers and pointers to structs, which they must compare with NULL, since Linux
 * kernel commit e5069b9c23b3 "bpf: Support pointers in global func args" (in v5.12). A pointer to a kernel's
 * object is neither. Linux 6.1 takes no key of a map in an argument's memory. Raw programs, for kernels that
 * lack these, inline it, or call it (OUT_OF_LINE).
 */
#if TYPED
#define VERIFIED_ONCE __noinline
#define OUT_OF_LINE __noinline
#else
#define VERIFIED_ONCE static __always_inline
#define OUT_OF_LINE static __noinline
#endif

/*
 * Make a number unknown to the verifier, which then walks the code after it once, and not once for each value
 * that it tracks. `unknown` is any number whose value the verifier does not know.
 */
#define FORGET(number, unknown) \
	asm volatile("%0 ^= %1; %0 ^= %1" : "+&r"(number) : "r"((typeof(number))(unknown)))

/* Pass several arguments as one macro argument. */
#define WITH(...) __VA_ARGS__

#if TYPED
#define TRACEPOINT_WAY "tp_btf/"
#else
#define TRACEPOINT_WAY "raw_tp/"
#endif

/* Program at a tracepoint, attached as this object does. `call` may use `ctx` and the arguments. */
#define TRACEPOINT_PROGRAM(name, tracepoint, arguments, call) \
	SEC(TRACEPOINT_WAY #tracepoint)                       \
	int BPF_PROG(name, arguments)                         \
	{                                                     \
		return call;                                  \
	}

/* Two programs on inet_sock_set_state, whose body takes (first, sk, oldstate, newstate). */
#define ON_SET_STATE(name, body, first)                                       \
	TRACEPOINT_PROGRAM(name, inet_sock_set_state,                         \
			   WITH(struct sock *sk, int oldstate, int newstate), \
			   WITH_PERF_FLUSH(ctx, body(first, sk, oldstate, newstate)))
#define SET_STATE_PROGRAMS(name, body)  \
	ON_SET_STATE(name, body, FIRST) \
	ON_SET_STATE(name##_again, body, SECOND)

/*
 * Tracepoint argument that not all kernels have; the caller knows that this kernel has it. A verifier that
 * tracks no constants (before Linux kernel commit a23740ec43ba "bpf: Track contents of read-only maps as
 * scalars", in v5.5) counts a load from `ctx` as an access even behind a constant that forbids it, and a
 * program that reads more arguments than there are cannot be attached.
 */
static __always_inline u64 optional_argument(u64 *ctx, u32 number)
{
	u64 value = 0;

	if (TYPED)
		return ctx[number];
	bpf_probe_read_kernel(&value, sizeof(value), ctx + number);
	return value;
}

static __always_inline struct task_struct *current_task(void)
{
	if (TYPED)
		return bpf_get_current_task_btf();
	return (struct task_struct *)bpf_get_current_task();
}

#define PF_KTHREAD 0x00200000

/* A kernel thread owns no socket; it runs work for others. */
static __always_inline bool is_kernel_thread(struct task_struct *task)
{
	return READ(task, flags) & PF_KTHREAD;
}

static __always_inline struct tcp_sock *tcp_sock_of(struct sock *sk)
{
	if (TYPED)
		return bpf_skc_to_tcp_sock(sk);
	return (struct tcp_sock *)sk;
}

#endif
