// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Stages that no tracepoint reports: functions of IP, netfilter and TCP, where the kernel allows programs to
 * attach to them. One body serves fentry and kprobes; it never accesses the ledger, which not all of these
 * programs can: a packet that starts here gets its owner at the next tracepoint.
 */
#define AT_FUNCTIONS

#include "trace/start.bpf.h"
#include "trace/waiting.bpf.h"

/* linux/netfilter.h */
#define NFPROTO_IPV4 2
#define NFPROTO_NETDEV 5
#define NFPROTO_BRIDGE 7
#define NFPROTO_IPV6 10
#define NF_ACCEPTED 1 /* nf_hook_slow() accepted the packet; 0: it no longer has it */

static __always_inline u32 inode_of(struct net *net)
{
	return net ? BPF_CORE_READ(net, ns.inum) : 0;
}

static __always_inline void add_in_netns(struct in_flight_packet *in_flight, u32 at,
					 struct net *net)
{
	struct stage *stage = add_stage(in_flight, at, bpf_ktime_get_ns());

	in_flight->hook = 0; /* in case the return of a hook was missed */
	if (stage)
		stage->netns = inode_of(net);
}

/* Not inlined: the callers' stack frames are full. */
static __noinline struct in_flight_packet *begin_sent(struct sk_buff *skb, struct packet *packet)
{
	struct place place;

	return begin_unnamed(false, skb, packet, &place);
}

/* Likewise. */
static __noinline int begin_at_its_socket(struct sk_buff *skb, struct in_flight_packet *in_flight)
{
	begin_at_socket(skb, in_flight);
	return 0;
}

/* Get or start the entry of a packet that TCP sends now. One started in the hook before is not checked again. */
static __always_inline struct in_flight_packet *in_flight_sent(struct sk_buff *skb)
{
	struct in_flight_packet *in_flight = in_flight_find(skb);
	struct packet packet = {};

	if (in_flight && last_stage(in_flight) == STAGE_NF_OUTPUT)
		return in_flight;
	if (!read_packet(skb, &packet))
		return NULL;
	if (in_flight) {
		if (is_same_packet(in_flight, &packet) && !is_sent_again(skb, in_flight))
			return in_flight;
		was_missed(skb, in_flight);
	}
	in_flight = begin_sent(skb, &packet);
	if (!in_flight)
		return NULL;
	in_flight->event.trace.sent = 1;
	begin_at_its_socket(skb, in_flight);
	return in_flight;
}

static __always_inline int on_ip_out(struct sk_buff *skb, struct net *net)
{
	struct in_flight_packet *in_flight =
		READ(skb, sk) ? in_flight_sent(skb) : in_flight_find(skb);

	if (in_flight)
		add_in_netns(in_flight, STAGE_IP_OUT, net);
	return 0;
}

static __always_inline int on_device(struct sk_buff *skb, u32 at)
{
	struct in_flight_packet *in_flight = in_flight_find(skb);

	if (!in_flight)
		return 0;
	in_flight->hook = 0;
	at_device(add_stage(in_flight, at, bpf_ktime_get_ns()), READ(skb, dev));
	return 0;
}

static __always_inline int on_backlog(struct sock *sk, struct sk_buff *skb)
{
	struct in_flight_packet *in_flight = in_flight_find(skb);

	if (in_flight)
		add_in_netns(in_flight, STAGE_TCP_BACKLOG,
			     BPF_CORE_READ(sk, __sk_common.skc_net.net));
	return 0;
}

/* TCP received the packet on this CPU just now: on_tcp() recorded it in last_one. */
static __always_inline int on_sock_queue(struct sock *sk, struct sk_buff *skb)
{
	struct last_one *last = bpf_map_lookup_elem(&last_one, &(u32){0});
	struct in_flight_packet *in_flight;

	if (!last || last->skb != (u64)skb || last->key.sk != (u64)sk)
		return 0;
	in_flight = find_waiting(&last->key);
	if (in_flight)
		add_in_netns(in_flight, STAGE_SOCK_QUEUE,
			     BPF_CORE_READ(sk, __sk_common.skc_net.net));
	return 0;
}

/* -- netfilter: one stage per hook with rules, added when they have run */

static __always_inline u32 stage_of_hook(u32 family, u32 hook)
{
	static const u8 stages[] = {STAGE_NF_PREROUTING, STAGE_NF_INPUT, STAGE_NF_FORWARD,
				    STAGE_NF_OUTPUT, STAGE_NF_POSTROUTING};

	if (family == NFPROTO_BRIDGE)
		return STAGE_NF_BRIDGE;
	if (family == NFPROTO_NETDEV)
		return STAGE_NF_NETDEV;
	if (family != NFPROTO_IPV4 && family != NFPROTO_IPV6)
		return 0;
	return hook < sizeof(stages) ? stages[hook] : 0;
}

/* Rules that drop a packet free it inside the hook: drop_at() finds the hook here. */
static __always_inline int on_hook(struct sk_buff *skb, struct nf_hook_state *state)
{
	u32 at = stage_of_hook(BPF_CORE_READ(state, pf), BPF_CORE_READ(state, hook));
	struct in_flight_packet *in_flight;

	in_flight = at == STAGE_NF_OUTPUT ? in_flight_sent(skb) : in_flight_find(skb);
	if (!in_flight)
		return 0;
	in_flight->hook = at;
	in_flight->hook_netns = inode_of(BPF_CORE_READ(state, net));
	return 0;
}

static __always_inline int on_verdict(struct sk_buff *skb, int result)
{
	u32 verdict = result == NF_ACCEPTED ? VERDICT_ACCEPT : VERDICT_STOLEN;
	struct in_flight_packet *in_flight = result < 0 ? NULL : in_flight_find(skb);

	if (in_flight)
		leave_hook(in_flight, verdict, bpf_ktime_get_ns());
	return 0;
}

#define MAX_HOOK 4 /* a softirq nests in a process, and rules may send answers */

/* Per-task stack of nf_hook_slow() calls: a kretprobe does not get the arguments. */
struct hook_calls {
	u64 skb[MAX_HOOK];
	u64 depth;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct hook_calls);
} hook_calls SEC(".maps");

static __always_inline struct hook_calls *calls_of_task(bool make)
{
	static const struct hook_calls none;
	u64 task = bpf_get_current_task();
	struct hook_calls *calls = bpf_map_lookup_elem(&hook_calls, &task);

	if (calls || !make)
		return calls;
	bpf_map_update_elem(&hook_calls, &task, &none, BPF_ANY);
	return bpf_map_lookup_elem(&hook_calls, &task);
}

/* A missed return leaves its call on the stack: a full stack starts over. */
static __always_inline int on_hook_call(struct sk_buff *skb, struct nf_hook_state *state)
{
	struct hook_calls *calls = calls_of_task(true);
	u64 depth;

	if (!calls)
		return 0;
	depth = calls->depth;
	if (depth >= MAX_HOOK)
		depth = 0;
	barrier_var(depth);
	calls->skb[depth & (MAX_HOOK - 1)] = (u64)skb;
	calls->depth = depth + 1;
	return on_hook(skb, state);
}

static __always_inline int on_hook_return(int result)
{
	struct hook_calls *calls = calls_of_task(false);
	u64 depth;

	if (!calls || !calls->depth)
		return 0;
	depth = calls->depth - 1;
	calls->depth = depth;
	barrier_var(depth);
	return on_verdict((struct sk_buff *)calls->skb[depth & (MAX_HOOK - 1)], result);
}

/*
 * Functions, where the kernel allows programs to attach to them: src/cgnet/kernel/function_hooks.py reads
 * this table from the names. Rows of one stage and part are alternatives, best first; all parts are required.
 */
#define AT_CALL(stage, part, function, kind, program, arguments, call)  \
	SEC(#kind "/" #function)                                        \
	int program(stage##__##part##__##function##__##kind, arguments) \
	{                                                               \
		return WITH_PERF_FLUSH(ctx, call);                      \
	}
#define FUNCTION(stage, part, function, arguments, call)                        \
	AT_CALL(stage, part, function, fentry, BPF_PROG, WITH(arguments), call) \
	AT_CALL(stage, part, function, kprobe, BPF_KPROBE, WITH(arguments), call)

FUNCTION(ip_out, v4, ip_output, WITH(struct net *net, struct sock *sk, struct sk_buff *skb),
	 on_ip_out(skb, net))
FUNCTION(ip_out, v6, ip6_output, WITH(struct net *net, struct sock *sk, struct sk_buff *skb),
	 on_ip_out(skb, net))
FUNCTION(ip_rcv, v4, ip_rcv_core, WITH(struct sk_buff *skb), on_device(skb, STAGE_IP_RCV))
FUNCTION(ip_rcv, v4, ip_rcv, WITH(struct sk_buff *skb), on_device(skb, STAGE_IP_RCV))
FUNCTION(ip_rcv, v6, ip6_rcv_core, WITH(struct sk_buff *skb), on_device(skb, STAGE_IP_RCV))
FUNCTION(ip_rcv, v6, ipv6_rcv, WITH(struct sk_buff *skb), on_device(skb, STAGE_IP_RCV))
FUNCTION(tcp_rcv, v4, tcp_v4_rcv, WITH(struct sk_buff *skb), on_device(skb, STAGE_TCP_RCV))
FUNCTION(tcp_rcv, v6, tcp_v6_rcv, WITH(struct sk_buff *skb), on_device(skb, STAGE_TCP_RCV))
FUNCTION(tcp_backlog, both, tcp_add_backlog, WITH(struct sock *sk, struct sk_buff *skb),
	 on_backlog(sk, skb))
FUNCTION(sock_queue, both, tcp_queue_rcv, WITH(struct sock *sk, struct sk_buff *skb),
	 on_sock_queue(sk, skb))
FUNCTION(sock_queue, both, tcp_data_queue, WITH(struct sock *sk, struct sk_buff *skb),
	 on_sock_queue(sk, skb))
AT_CALL(netfilter, both, nf_hook_slow, fentry, BPF_PROG,
	WITH(struct sk_buff *skb, struct nf_hook_state *state), on_hook(skb, state))
AT_CALL(netfilter, both, nf_hook_slow, fexit, BPF_PROG,
	WITH(struct sk_buff *skb, void *state, void *entries, u32 first, int result),
	on_verdict(skb, result))
AT_CALL(netfilter, both, nf_hook_slow, kprobe, BPF_KPROBE,
	WITH(struct sk_buff *skb, struct nf_hook_state *state), on_hook_call(skb, state))
AT_CALL(netfilter, both, nf_hook_slow, kretprobe, BPF_KRETPROBE, WITH(int result),
	on_hook_return(result))

char LICENSE[] SEC("license") = "Dual BSD/GPL";
