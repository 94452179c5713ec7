// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Who owns a socket, by the ledger, and who runs, by the kernel: counted for each local address at each
 * hook that TCP's events come to. attribution.py reads it.
 */
#include "base/flow.bpf.h"

#define HAS_LEDGER_PRIVATE
/* How often a socket was looked at: 0 at the first time, or it has another's. */
struct ledger_private {
	u64 looks;
};

#include "owner/all_sockets.bpf.h"
#include "filter/cgroup_events.bpf.h"
#include "count/count.bpf.h"

CONFIG(owner_config);

/* Servers at this port are told apart by their peers' ports. */
#define SHARED_PORT 7777
#define E2BIG 7 /* asm-generic/errno-base.h */

enum hook {
	HOOK_NEW = 1,
	HOOK_STATE = 2,
	HOOK_ESTABLISHED = 3,
	HOOK_CLOSE = 4,
	HOOK_PROBE = 5,
	HOOK_RETRANSMIT = 6,
	HOOK_RESET = 7,
	HOOK_DESTROY = 8,
};

struct seen {
	u64 cgroup_id; /* of the ledger */
	u64 current_id;
	u8 address[16];
	u32 pid;
	u16 peer;
	u8 hook;
	u8 source;
	u8 wanted;
	u8 stale; /* 1: what a new socket has is another's */
	u8 pad[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct seen);
	__type(value, u64);
} seen SEC(".maps");

/* 0: events that had no place above. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} unseen SEC(".maps");

static __always_inline void add(void *map, void *key)
{
	u64 *count = bpf_map_lookup_elem(map, key);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline void see(struct sock *sk, u32 hook, const bool locked)
{
	struct tcp_sock *tp = tcp_sock_of(sk);
	struct seen key = {.hook = hook};
	const struct holder *holder;
	struct ledger_entry *entry;
	struct flow flow;
	u64 zero = 0;

	entry = ledger_of(locked, sk);
	if (!entry || !tp) {
		add(&unseen, &(u32){0});
		return;
	}
	holder = holder_of(entry);
	flow_of_sock(TYPED, sk, tp, &flow);
	key.cgroup_id = holder->owner.cgroup_id;
	key.source = holder->owner.source;
	key.pid = holder->owner.pid;
	key.wanted = holder->wanted;
	key.stale = hook == HOOK_NEW && entry->private.looks;
	entry->private.looks++;
	key.current_id =
		task_cgroup_id(TYPED, current_task(), owner_config.hierarchy[0].controller);
	if (flow.sport == SHARED_PORT)
		key.peer = flow.dport;
	__builtin_memcpy(key.address, flow.saddr, sizeof(key.address));
	if (!bpf_map_lookup_elem(&seen, &key) &&
	    bpf_map_update_elem(&seen, &key, &zero, BPF_NOEXIST) == -E2BIG)
		add(&unseen, &(u32){0});
	add(&seen, &key);
}

static __always_inline int on_set_state(struct sock *sk, int oldstate, int newstate)
{
	if (!is_tcp(sk))
		return 0;
	ledger_on_state(sk, oldstate, newstate);
	if (newstate == TCP_SYN_SENT || (oldstate == TCP_LISTEN && newstate == TCP_SYN_RECV))
		see(sk, HOOK_NEW, true);
	else if (newstate == TCP_ESTABLISHED)
		see(sk, HOOK_ESTABLISHED, true);
	else if (newstate == TCP_CLOSE) /* `ss -K` comes here, under the lock */
		see(sk, HOOK_CLOSE, false);
	else
		see(sk, HOOK_STATE, true);
	return 0;
}

TRACEPOINT_PROGRAM(seen_state, inet_sock_set_state,
		   WITH(struct sock *sk, int oldstate, int newstate),
		   on_set_state(sk, oldstate, newstate))
TRACEPOINT_PROGRAM(seen_probe, tcp_probe, WITH(struct sock *sk), (see(sk, HOOK_PROBE, true), 0))
TRACEPOINT_PROGRAM(seen_retransmit, tcp_retransmit_skb, WITH(struct sock *sk),
		   (see(sk, HOOK_RETRANSMIT, true), 0))
TRACEPOINT_PROGRAM(seen_reset, tcp_receive_reset, WITH(struct sock *sk),
		   (see(sk, HOOK_RESET, true), 0))

#if TYPED /* the other ledger may have forgotten the socket just before */
TRACEPOINT_PROGRAM(seen_destroy, tcp_destroy_sock, WITH(struct sock *sk),
		   (see(sk, HOOK_DESTROY, false), 0))
#endif

char LICENSE[] SEC("license") = "Dual BSD/GPL";
