/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP packets that the kernel dropped: bodies of programs.
 *
 * kfree_skb runs on top of any task. The owner is that of the packet's socket, if there is one; else the network
 * namespace that the packet was in, or its addresses, determine it.
 */
#ifndef CGNET_DROP_DROPS_BPF_H
#define CGNET_DROP_DROPS_BPF_H

#include "base/packet.bpf.h"
#include "owner/all_sockets.bpf.h"
#include "drop/emit.bpf.h"
#include "drop/accept_queues.bpf.h"

CONFIG(class_config);
CONFIG(drop_config);

static __always_inline bool reason_passes(u32 reason)
{
	return !drop_config.by_reason ||
	       hash_passes(&selected_reasons, &reason, drop_config.by_reason);
}

struct sock___filtered {
	void *sk_filter;
} __attribute__((preserve_access_index));

/* Else the filter is a program at the cgroup, or a security module. */
static __always_inline bool has_own_filter(struct sock *rx_sk)
{
	struct sock___filtered *part = (void *)rx_sk;

	return BPF_CORE_READ(part, sk_filter) != NULL;
}

static __always_inline int drop_on_drop(void *ctx, struct sk_buff *skb, u64 location, u32 reason,
					struct sock *rx_sk)
{
	struct drop drop = {.reason = reason};
	struct packet packet = {};
	struct place place;

	if (unlikely(is_overflow(reason, rx_sk)))
		drop.reason = class_config.overflow_reason;
	if (!reason_passes(drop.reason) || !read_packet(skb, &packet))
		return 0;
	drop.location = caller_of_free(ctx, location);
	FORGET_VALUES(&packet);
	find_place(skb, rx_sk, &place);
	if (rx_sk && place.tcp_state == TCP_TIME_WAIT)
		drop.new_data = is_new_data(rx_sk, &packet);
	if (place.sk && reason == class_config.filter_reason)
		drop.own_filter = has_own_filter(place.sk);
	tell_drop(ctx, &packet, &drop, &place, NULL);
	return 0;
}

/* -- SYNs dropped by a full queue of their listener */

static __always_inline int drop_on_consume(void *ctx, struct sk_buff *skb, u64 location)
{
	struct drop drop = {.location = location};
	struct packet packet = {};
	struct place place = {};
	struct listening *listening;
	struct holder *known;
	struct sock *listener;

	if (likely(!is_received_syn(skb)) || !read_packet(skb, &packet))
		return 0;
	FORGET_VALUES(&packet);
	place.netns = netns_of_route(skb);
	listening = listening_for(place.netns, &packet.flow);
	if (!listening)
		return 0;
	drop.reason = reason_of_syn(listening);
	if (!drop.reason || !reason_passes(drop.reason))
		return 0;
	listener = (struct sock *)listening->sk;
	place.cookie = socket_netns_cookie(false, listener);
	place.tcp_state = TCP_LISTEN;
	place.ifindex = READ(skb, skb_iif);
	known = listener_by_address(false, listener);
	if (known && !known->owner.source)
		known = NULL;
	tell_drop(ctx, &packet, &drop, &place, known);
	return 0;
}

#if TYPED
/* Record the listeners that exist at the start. */
SEC("iter/task_file")
int syn_seed(struct task_file *ctx)
{
	struct socket *socket;
	struct sock *sk;

	if (!ctx->task || !ctx->file)
		return 0;
	socket = bpf_sock_from_file(ctx->file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (sk && sk->__sk_common.skc_state == TCP_LISTEN && is_tcp(sk))
		remember_queue(sk);
	return 0;
}
#endif

/* -- the ledger */

static __always_inline int drop_on_state(struct sock *sk, int oldstate, int newstate)
{
	if (!is_tcp(sk))
		return 0;
	ledger_on_state(sk, oldstate, newstate);
	remember_time_wait(sk, oldstate, newstate);
	if (!TYPED && sockets_are_told() && newstate == TCP_CLOSE)
		remember_closed(sk);
	if (newstate == TCP_SYN_SENT)
		remember_sender(sk);
	if (drop_config.syn_drops)
		queue_on_state(sk, oldstate, newstate);
	return 0;
}

#endif
