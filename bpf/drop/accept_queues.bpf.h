/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * SYNs dropped by a full queue of their listener: the accept queue, or the queue of half-open connections.
 * The kernel frees them as it frees accepted SYNs, with consume_skb: the listener's queues and its count of
 * drops tell them apart. The tracepoint has no socket, so listeners are kept by local address.
 */
#ifndef CGNET_DROP_ACCEPT_QUEUES_BPF_H
#define CGNET_DROP_ACCEPT_QUEUES_BPF_H

#include "drop/emit.bpf.h"

CONFIG(class_config);

struct listening {
	u64 sk;	   /* read with fault handling; 0: several listen there, so a SYN's is unknown */
	u32 drops; /* the part of its sk_drops that is accounted for */
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct listener_key);
	__type(value, struct listening);
} accept_queues SEC(".maps");

/* Parts of the kernel's structs; the first is its atomic_t. */
struct atomic_part {
	int counter;
} __attribute__((preserve_access_index));

struct request_sock_queue___part {
	struct atomic_part qlen;
} __attribute__((preserve_access_index));

struct inet_connection_sock___part {
	struct request_sock_queue___part icsk_accept_queue;
} __attribute__((preserve_access_index));

struct netns_ipv4___part {
	int sysctl_max_syn_backlog;
} __attribute__((preserve_access_index));

struct net___part {
	struct netns_ipv4___part ipv4;
} __attribute__((preserve_access_index));

struct sock___part {
	struct atomic_part sk_drops;
} __attribute__((preserve_access_index));

static __always_inline u32 drops_of(struct sock *sk)
{
	struct sock___part *part = (void *)sk;

	return BPF_CORE_READ(part, sk_drops.counter);
}

static __always_inline void remember_queue(struct sock *sk)
{
	struct listening mine = {.sk = (u64)sk, .drops = drops_of(sk)}, none = {}, *known;
	struct listener_key key = {};

	key_of_listener(false, sk, &key);
	if (!key.port)
		return;
	known = bpf_map_lookup_elem(&accept_queues, &key);
	if (known && known->sk == mine.sk)
		return;
	if (bpf_map_update_elem(&accept_queues, &key, known ? &none : &mine, BPF_ANY))
		count_lost(LOST_LEDGER);
}

static __always_inline void forget_queue(struct sock *sk)
{
	struct listener_key key = {};
	struct listening *known;

	key_of_listener(false, sk, &key);
	known = bpf_map_lookup_elem(&accept_queues, &key);
	if (known && known->sk == (u64)sk)
		bpf_map_delete_elem(&accept_queues, &key);
}

static __always_inline void queue_on_state(struct sock *sk, int oldstate, int newstate)
{
	if (oldstate == TCP_LISTEN && newstate == TCP_CLOSE)
		forget_queue(sk);
	if (newstate == TCP_LISTEN)
		remember_queue(sk);
}

/* Network namespace of a packet that has been routed to this host. */
static __always_inline u32 netns_of_route(struct sk_buff *skb)
{
	struct net_device *dev = device_of_route(skb);

	return dev ? BPF_CORE_READ(dev, nd_net.net, ns.inum) : 0;
}

/* The only listener at the destination of a SYN, or NULL. */
static __always_inline struct listening *listening_for(u32 netns, const struct flow *flow)
{
	struct listener_key key = {};
	struct listening *found;
	struct sock *sk;

	key_of_destination(netns, flow, &key);
	found = bpf_map_lookup_elem(&accept_queues, &key);
	if (!found) {
		__builtin_memset(key.address, 0, sizeof(key.address));
		found = bpf_map_lookup_elem(&accept_queues, &key);
	}
	sk = found ? (struct sock *)found->sk : NULL;
	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN)
		return NULL;
	return found;
}

static __always_inline bool accept_queue_is_full(struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_ack_backlog) > BPF_CORE_READ(sk, sk_max_ack_backlog);
}

/*
 * The test of tcp_conn_request(): the backlog limits half-open connections, and, without SYN cookies, three
 * quarters of tcp_max_syn_backlog limit those of peers not known to be alive.
 */
static __always_inline bool syn_queue_is_full(struct sock *sk)
{
	struct inet_connection_sock___part *icsk = (void *)sk;
	struct net___part *net = (void *)BPF_CORE_READ(sk, __sk_common.skc_net.net);
	int half_open = BPF_CORE_READ(icsk, icsk_accept_queue.qlen.counter);
	int most = BPF_CORE_READ(net, ipv4.sysctl_max_syn_backlog);

	return half_open >= (int)BPF_CORE_READ(sk, sk_max_ack_backlog) ||
	       most - half_open < most >> 2;
}

/*
 * Full queue that dropped a SYN, as a drop reason; 0: none. An accepted SYN may be the one that fills the
 * queue of half-open connections: the listener counts only a dropped one.
 */
static __always_inline u32 reason_of_syn(struct listening *listening)
{
	struct sock *sk = (struct sock *)listening->sk;
	u32 drops = drops_of(sk);
	u32 reason = 0;

	if (accept_queue_is_full(sk))
		reason = class_config.overflow_reason;
	else if (syn_queue_is_full(sk) && (s32)(drops - listening->drops) > 0)
		reason = REASON_SYN_QUEUE_FULL;
	else if (!syn_queue_is_full(sk))
		listening->drops = drops; /* those had other causes */
	if (reason)
		__sync_fetch_and_add(&listening->drops, 1);
	return reason;
}

#endif
