// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Errors that connect() returns before a SYN is sent: no route, no permission. They reach no TCP state. There
 * are three ways to see them, of which user space loads one at most, the first that works:
 * - fentry and fexit of tcp_v4_connect and tcp_v6_connect, and of inet_stream_connect around them, where BPF
 *   programs of a cgroup refuse a call before it comes to TCP;
 * - kprobe and kretprobe of the same functions;
 * - the tracepoints of the system call, which slow every system call of the host.
 * Each records the call's start by thread, and reports a failing return unless the attempt reached
 * TCP_SYN_SENT meanwhile.
 */
#define AT_FUNCTIONS

#include "base/flow.bpf.h"
#include "base/task.bpf.h"
#include "connect/connect_calls.bpf.h"
#include "connect/emit.bpf.h"

CONFIG(connect_config);

#define IPPROTO_MPTCP 262
#define ERESTARTSYS 512
#define SS_UNCONNECTED 1
#define S_IFMT 0170000
#define S_IFSOCK 0140000

/* Records of the tracepoints syscalls:sys_enter_* and sys_exit_*, the same on every architecture. */
struct syscall_enter {
	u64 common;
	long id;
	unsigned long args[6];
};

struct syscall_exit {
	u64 common;
	long id;
	long ret;
};

/* Union of struct sockaddr_in and sockaddr_in6. */
union address {
	struct {
		u16 family;
		u16 port;
		u32 v4;
	};
	struct {
		u16 family6;
		u16 port6;
		u32 flowinfo;
		struct in6_addr v6;
	};
};

static __always_inline void flow_to(struct flow *flow, const union address *to)
{
	flow->dport = bpf_ntohs(to->port);
	if (to->family == AF_INET) {
		flow->family = 4;
		store_v4(flow->daddr, to->v4);
	} else if (is_v4_mapped(&to->v6)) {
		flow->family = 4;
		flow->mapped = 1;
		store_v4(flow->daddr, to->v6.in6_u.u6_addr32[3]);
	} else {
		flow->family = 6;
		store_v6(flow->daddr, &to->v6);
	}
}

static __always_inline void flow_from(struct flow *flow, struct sock *sk)
{
	struct inet_sock *inet = (struct inet_sock *)sk;

	flow->sport = bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
	flow->netns = netns_of(TYPED, sk);
	if (flow->family == 4)
		store_v4(flow->saddr, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
	else
		BPF_CORE_READ_INTO(&flow->saddr, sk, __sk_common.skc_v6_rcv_saddr);
}

/* Runs in the calling process: the owner is the current task. */
static __always_inline void emit_sync_error(struct sock *sk, const union address *to, int err)
{
	struct outcome outcome = {.result = err, .tcp_state = TCP_CLOSE, .role = ROLE_CLIENT};
	struct task_struct *task = current_task();
	struct flow flow = {};
	struct owner owner;

	if (to->family != AF_INET && to->family != AF_INET6)
		return;
	learn(task, &owner);
	if (!owner_passes(task, &owner))
		return;
	flow_to(&flow, to);
	flow_from(&flow, sk);
	emit_connection(sk, bpf_ktime_get_ns(), &owner, &flow, &outcome, (struct tcp_sock *)sk);
}

/*
 * The call returned, and its attempt is in progress: an ICMP error may have come meanwhile. The application
 * has not read it yet.
 */
static __always_inline void note_soft_error(struct sock *sk)
{
	struct soft_error error = {.error = BPF_CORE_READ(sk, sk_err_soft)};
	u64 key = (u64)sk;

	if (!error.error || BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_SYN_SENT)
		return;
	error.ts_ns = bpf_ktime_get_ns();
	bpf_map_update_elem(&soft_errors, &key, &error, BPF_ANY);
}

static __always_inline void connect_call_begins(struct sock *sk, u64 address)
{
	struct connect_call call = {.sk = (u64)sk, .address = address};
	u64 thread = bpf_get_current_pid_tgid();

	if (bpf_map_update_elem(&connect_calls, &thread, &call, BPF_ANY))
		count_lost(LOST_CONNECT_CALLS);
}

static __always_inline int connect_call_ends(long ret, bool user_address)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct connect_call *found = bpf_map_lookup_elem(&connect_calls, &thread);
	struct connect_call call;
	union address to = {};

	if (!found)
		return 0;
	call = *found;
	bpf_map_delete_elem(&connect_calls, &thread);
	if (call.reached_tcp)
		note_soft_error((struct sock *)call.sk);
	if (ret >= 0 || ret <= -ERESTARTSYS || call.reached_tcp)
		return 0;
	if (user_address)
		bpf_probe_read_user(&to, sizeof(to), (void *)call.address);
	else
		bpf_probe_read_kernel(&to, sizeof(to), (void *)call.address);
	emit_sync_error((struct sock *)call.sk, &to, -ret);
	return 0;
}

/* tcp_v6_connect() calls tcp_v4_connect() for a mapped address: the outer return counts. */
static __always_inline bool is_inner_call(struct sock *sk, u16 function_family)
{
	return BPF_CORE_READ(sk, __sk_common.skc_family) != function_family;
}

#define CONNECT_FUNCTION(function, function_family)                                         \
	SEC("fentry/" #function)                                                            \
	int BPF_PROG(function##_fentry, struct sock *sk, void *address)                     \
	{                                                                                   \
		if (!is_inner_call(sk, function_family))                                    \
			connect_call_begins(sk, (u64)address);                              \
		return 0;                                                                   \
	}                                                                                   \
	SEC("fexit/" #function)                                                             \
	int BPF_PROG(function##_fexit, struct sock *sk, void *address, int len, int ret)    \
	{                                                                                   \
		if (!is_inner_call(sk, function_family))                                    \
			return WITH_PERF_FLUSH(ctx, connect_call_ends(ret, false));         \
		return 0;                                                                   \
	}                                                                                   \
	SEC("kprobe/" #function)                                                            \
	int BPF_KPROBE(function##_kprobe, struct sock *sk, void *address)                   \
	{                                                                                   \
		if (!is_inner_call(sk, function_family))                                    \
			connect_call_begins(sk, (u64)address);                              \
		return 0;                                                                   \
	}                                                                                   \
	/* A return has no arguments: the inner one ends the call, with the same result. */ \
	SEC("kretprobe/" #function)                                                         \
	int BPF_KRETPROBE(function##_kretprobe, int ret)                                    \
	{                                                                                   \
		return WITH_PERF_FLUSH(ctx, connect_call_ends(ret, false));                 \
	}

CONNECT_FUNCTION(tcp_v4_connect, AF_INET)
CONNECT_FUNCTION(tcp_v6_connect, AF_INET6)

/* TCP socket that connect() may start an attempt on; NULL for others. */
static __always_inline struct sock *idle_tcp_sock(struct socket *socket)
{
	struct sock *sk = BPF_CORE_READ(socket, sk);
	u32 protocol = BPF_CORE_READ_BITFIELD_PROBED(sk, sk_protocol);

	if ((protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP) ||
	    BPF_CORE_READ(socket, state) != SS_UNCONNECTED ||
	    BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_CLOSE)
		return NULL;
	return sk;
}

static __always_inline int socket_connect_begins(struct socket *socket, u64 address)
{
	struct sock *sk = idle_tcp_sock(socket);

	if (sk)
		connect_call_begins(sk, address);
	return 0;
}

/* inet_stream_connect() calls the functions above. Report a call here only if it failed before it reached them. */
SEC("fentry/inet_stream_connect")
int BPF_PROG(inet_stream_connect_fentry, struct socket *socket, void *address)
{
	return socket_connect_begins(socket, (u64)address);
}

SEC("fexit/inet_stream_connect")
int BPF_PROG(inet_stream_connect_fexit, struct socket *socket, void *address, int len, int flags,
	     int ret)
{
	return WITH_PERF_FLUSH(ctx, connect_call_ends(ret, false));
}

SEC("kprobe/inet_stream_connect")
int BPF_KPROBE(inet_stream_connect_kprobe, struct socket *socket, void *address)
{
	return socket_connect_begins(socket, (u64)address);
}

SEC("kretprobe/inet_stream_connect")
int BPF_KRETPROBE(inet_stream_connect_kretprobe, int ret)
{
	return WITH_PERF_FLUSH(ctx, connect_call_ends(ret, false));
}

/* Socket of a file descriptor of the current task; NULL for other files. */
static __always_inline struct socket *socket_of(u32 fd)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file **files, *file;

	if (fd >= BPF_CORE_READ(fdt, max_fds))
		return NULL;
	files = BPF_CORE_READ(fdt, fd);
	if (bpf_probe_read_kernel(&file, sizeof(file), files + fd) || !file)
		return NULL;
	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	return BPF_CORE_READ(file, private_data);
}

SEC("tracepoint/syscalls/sys_enter_connect")
int connect_syscall_enter(struct syscall_enter *ctx)
{
	struct socket *socket = socket_of(ctx->args[0]);

	return socket ? socket_connect_begins(socket, ctx->args[1]) : 0;
}

SEC("tracepoint/syscalls/sys_exit_connect")
int connect_syscall_exit(struct syscall_exit *ctx)
{
	return WITH_PERF_FLUSH(ctx, connect_call_ends(ctx->ret, true));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
