/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * SYNs that a full accept queue swallows. The kernel frees them as it frees the SYNs that it takes, with
 * consume_skb: the listener's queue tells them apart. At that moment no socket is at hand, so that listeners
 * are kept by where they listen.
 */
#ifndef CGNET_ACCEPT_QUEUES_BPF_H
#define CGNET_ACCEPT_QUEUES_BPF_H

#include "dropped.bpf.h"

#define TCP_FLAGS_OFFSET 13
#define FLAG_SYN 0x02
#define FLAG_ACK 0x10

/* A pointer, to be read with care; 0: several listen there, and which one a SYN is for isn't known. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct listener_key);
	__type(value, u64);
} accept_queues SEC(".maps");

static __always_inline void remember_queue(struct sock *sk)
{
	u64 mine = (u64)sk, none = 0, *known;
	struct listener_key key = {};

	key_of_listener(false, sk, &key);
	if (!key.port)
		return;
	known = bpf_map_lookup_elem(&accept_queues, &key);
	if (known && *known == mine)
		return;
	if (bpf_map_update_elem(&accept_queues, &key, known ? &none : &mine, BPF_ANY))
		count_lost(LOST_LEDGER);
}

static __always_inline void forget_queue(struct sock *sk)
{
	struct listener_key key = {};
	u64 *known;

	key_of_listener(false, sk, &key);
	known = bpf_map_lookup_elem(&accept_queues, &key);
	if (known && *known == (u64)sk)
		bpf_map_delete_elem(&accept_queues, &key);
}

static __always_inline void queue_on_state(const bool typed, struct sock *sk, int oldstate,
					   int newstate)
{
	if (oldstate == TCP_LISTEN && newstate == TCP_CLOSE)
		forget_queue(sk);
	if (newstate == TCP_LISTEN)
		remember_queue(sk);
}

/* TCP has taken it off its device. */
static __always_inline bool is_received_syn(const bool typed, struct sk_buff *skb)
{
	u16 protocol = READ(skb, protocol);
	u8 flags = 0;

	if (READ(skb, dev) || !READ(skb, skb_iif))
		return false;
	if (protocol != bpf_htons(ETH_P_IP) && protocol != bpf_htons(ETH_P_IPV6))
		return false;
	bpf_probe_read_kernel(&flags, sizeof(flags),
			      READ(skb, head) + READ(skb, transport_header) + TCP_FLAGS_OFFSET);
	return (flags & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN;
}

/* Of a packet that has been routed to this host. */
static __always_inline u32 netns_of_route(struct sk_buff *skb)
{
	struct net_device *dev = device_of_route(skb);

	return dev ? BPF_CORE_READ(dev, nd_net.net, ns.inum) : 0;
}

/* The listener that a SYN was for if its accept queue is full, else NULL. */
static __always_inline struct sock *full_listener(u32 netns, const struct flow *flow)
{
	struct listener_key key = {};
	struct sock *sk;
	u64 *found;

	key_of_destination(netns, flow, &key);
	found = bpf_map_lookup_elem(&accept_queues, &key);
	if (!found) {
		__builtin_memset(key.address, 0, sizeof(key.address));
		found = bpf_map_lookup_elem(&accept_queues, &key);
	}
	sk = found ? (struct sock *)*found : NULL;
	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN)
		return NULL;
	if (BPF_CORE_READ(sk, sk_ack_backlog) <= BPF_CORE_READ(sk, sk_max_ack_backlog))
		return NULL;
	return sk;
}

#endif
