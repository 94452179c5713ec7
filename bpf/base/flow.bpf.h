/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses, ports and network namespace of a socket. */
#ifndef CGNET_BASE_FLOW_BPF_H
#define CGNET_BASE_FLOW_BPF_H

#include "base/program.bpf.h"
#include "abi/flow.h"
#include <bpf/bpf_endian.h>

#define AF_UNSPEC 0
#define AF_INET 2
#define AF_INET6 10

static __always_inline bool is_tcp(struct sock *sk)
{
	return READ_BITFIELD(sk, sk_protocol) == IPPROTO_TCP;
}

/* A request, or a socket in TIME_WAIT, has only struct sock_common. */
static __always_inline bool is_full(struct sock *sk)
{
	u8 state = READ(sk, __sk_common.skc_state);

	return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

static __always_inline bool is_v4_mapped(const struct in6_addr *addr)
{
	const u32 *words = addr->in6_u.u6_addr32;

	return !words[0] && !words[1] && words[2] == bpf_htonl(0xffff);
}

static __always_inline void store_v4(u8 *to, u32 addr)
{
	u32 *words = (u32 *)to, zero = 0;

	FORGET(zero, addr); /* the verifier tells zeros from the bytes of an IPv6 address */
	words[0] = addr;
	words[1] = words[2] = words[3] = zero;
}

static __always_inline void store_v6(u8 *to, const struct in6_addr *addr)
{
	__builtin_memcpy(to, addr, sizeof(*addr));
}

static __always_inline u32 netns_of(const bool typed, struct sock *sk)
{
	struct net *net = READ_AS(typed, sk, __sk_common.skc_net.net);

	return READ_AS(typed, net, ns.inum);
}

/* Inode of a socket's file; 0: it has none, or none yet. */
static __always_inline u64 socket_inode(struct sock *sk)
{
	struct socket *socket = BPF_CORE_READ(sk, sk_socket);
	struct socket_alloc *alloc;

	if (!socket)
		return 0;
	alloc = (void *)socket - bpf_core_field_offset(struct socket_alloc, socket);
	return BPF_CORE_READ(alloc, vfs_inode.i_ino);
}

/* The local side comes first. `sk` may be a request. */
static __always_inline void flow_from_port(const bool typed, struct sock *sk, u16 sport,
					   struct flow *flow)
{
	u16 family = READ_AS(typed, sk, __sk_common.skc_family);

	flow->family = 4;
	flow->mapped = 0;
	if (unlikely(family == AF_INET6)) {
		struct in6_addr daddr = READ_AS(typed, sk, __sk_common.skc_v6_daddr);

		flow->mapped = is_v4_mapped(&daddr);
		if (!flow->mapped) {
			struct in6_addr saddr = READ_AS(typed, sk, __sk_common.skc_v6_rcv_saddr);

			flow->family = 6;
			store_v6(flow->saddr, &saddr);
			store_v6(flow->daddr, &daddr);
		}
	}
	if (flow->family == 4) {
		store_v4(flow->saddr, READ_AS(typed, sk, __sk_common.skc_rcv_saddr));
		store_v4(flow->daddr, READ_AS(typed, sk, __sk_common.skc_daddr));
	}
	flow->sport = sport;
	flow->dport = bpf_ntohs(READ_AS(typed, sk, __sk_common.skc_dport));
	flow->netns = netns_of(typed, sk);
	__builtin_memset(flow->pad, 0, sizeof(flow->pad));
}

/*
 * The local port is inet_sport: skc_num is already 0 when a socket that was not bound gets to TCP_CLOSE
 * (inet_put_port runs before the tracepoint).
 */
static __always_inline void flow_of_sock(const bool typed, struct sock *sk, struct tcp_sock *tp,
					 struct flow *flow)
{
	u16 sport = bpf_ntohs(READ_AS(typed, tp, inet_conn.icsk_inet.inet_sport));

	flow_from_port(typed, sk, sport, flow);
}

#endif
