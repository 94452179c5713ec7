/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP packet, read from its headers. The skb has their offsets; read_packet() trusts them only if the headers
 * agree, because a packet in a socket's error queue carries the offsets of another.
 */
#ifndef CGNET_BASE_PACKET_BPF_H
#define CGNET_BASE_PACKET_BPF_H

#include "base/flow.bpf.h"
#include "abi/packet.h"

CONFIG(packet_config);

/* linux/if_ether.h, linux/in6.h */
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define NEXTHDR_HOPOPTS 0
#define NEXTHDR_ROUTING 43
#define NEXTHDR_DSTOPTS 60

#define IP_OFFSET 0x1fff /* of a fragment: only the first one has the TCP header */
#define TCP_FLAGS_OFFSET 13
#define RECEIVED_SYN 0x02
#define RECEIVED_ACK 0x10
#define NOT_SET 0xffff /* header offset that is not set */

/* Optional arguments of kfree_skb about a drop; `ctx` is the tracepoint's. 0 or NULL if the kernel has none. */
static __always_inline u32 reason_in(u64 *ctx)
{
	return packet_config.drop_arguments > 2 ? optional_argument(ctx, 2) : 0;
}

static __always_inline struct sock *rx_sk_in(u64 *ctx)
{
	return packet_config.drop_arguments > 3 ? (struct sock *)optional_argument(ctx, 3) : NULL;
}

struct packet {
	struct flow flow;
	u32 seq;
	u32 ack;
	u32 len;     /* includes the IP header */
	u32 payload; /* of TCP */
	u8 flags;
};

/*
 * Copy an object on the stack onto itself, so that the verifier forgets its contents. In the code for drops
 * many paths join, and the verifier would walk the rest of the program once for each path with different
 * values: 275,000 instructions, against 48,000 with these copies (for a verifier that tracks no constants).
 */
#define FORGET_VALUES(object) bpf_probe_read_kernel(object, sizeof(*(object)), object)

/* Wire format of the headers (RFC 791, RFC 8200, RFC 9293): vmlinux.h has only parts of the kernel's. */
struct ipv4_start {
	u8 version_ihl; /* length in words, in the lower half */
	u8 tos;
	u16 tot_len;
	u16 id;
	u16 frag_off;
	u8 ttl;
	u8 protocol;
	u16 check;
	u32 saddr;
	u32 daddr;
};

struct ipv6_start {
	u32 version_flow;
	u16 payload_len;
	u8 nexthdr;
	u8 hop_limit;
	struct in6_addr saddr;
	struct in6_addr daddr;
};

struct tcp_start {
	u16 source;
	u16 dest;
	u32 seq;
	u32 ack;
	u8 offset; /* in words, in the upper half */
	u8 flags;
};

/* In most packets the TCP header directly follows the IP header: one read gets both. */
struct ipv4_tcp_start {
	struct ipv4_start ip;
	struct tcp_start tcp;
};

struct ipv6_tcp_start {
	struct ipv6_start ip;
	struct tcp_start tcp;
};

/* Read the IP header; return its length, or 0 if the packet is not TCP. */
static __always_inline u32 read_ipv4(const void *at, struct flow *flow, u32 *total,
				     struct tcp_start *tcp)
{
	struct ipv4_tcp_start both;

	if (bpf_probe_read_kernel(&both, sizeof(both), at) || both.ip.protocol != IPPROTO_TCP ||
	    (both.ip.frag_off & bpf_htons(IP_OFFSET)))
		return 0;
	flow->family = 4;
	store_v4(flow->saddr, both.ip.saddr);
	store_v4(flow->daddr, both.ip.daddr);
	*total = bpf_ntohs(both.ip.tot_len);
	*tcp = both.tcp;
	return (both.ip.version_ihl & 0xf) * 4;
}

/*
 * With extension headers, only the offset in the skb shows where the next header begins; the last extension
 * starts with its type. Only one extension is supported: more are not expected with TCP.
 */
static __always_inline u32 read_ipv6(const void *at, u32 noted, struct flow *flow, u32 *total,
				     struct tcp_start *tcp)
{
	struct ipv6_tcp_start both;
	u8 next;

	if (bpf_probe_read_kernel(&both, sizeof(both), at))
		return 0;
	next = both.ip.nexthdr;
	flow->family = 6;
	store_v6(flow->saddr, &both.ip.saddr);
	store_v6(flow->daddr, &both.ip.daddr);
	*total = both.ip.payload_len ? bpf_ntohs(both.ip.payload_len) + sizeof(both.ip) : 0;
	*tcp = both.tcp;
	if (next == IPPROTO_TCP)
		return sizeof(both.ip);
	if (next != NEXTHDR_HOPOPTS && next != NEXTHDR_ROUTING && next != NEXTHDR_DSTOPTS)
		return 0;
	if (bpf_probe_read_kernel(&next, sizeof(next), at + sizeof(both.ip)) || next != IPPROTO_TCP)
		return 0;
	return noted;
}

/* Whether an skb is TCP over IP, and if so, which packet. Does not set the namespace. */
static __always_inline bool read_packet(struct sk_buff *skb, struct packet *packet)
{
	unsigned char *head = READ(skb, head), *data = READ(skb, data);
	u16 network = READ(skb, network_header), transport = READ(skb, transport_header);
	u16 protocol = READ(skb, protocol);
	u32 noted = transport != NOT_SET && transport > network ? transport - network : 0;
	u32 end = data - head + READ(skb, len);
	struct tcp_start tcp;
	u32 ip_len, behind, total = 0;

	if (protocol == bpf_htons(ETH_P_IP)) {
		behind = sizeof(struct ipv4_start);
		ip_len = read_ipv4(head + network, &packet->flow, &total, &tcp);
	} else if (protocol == bpf_htons(ETH_P_IPV6)) {
		behind = sizeof(struct ipv6_start);
		ip_len = read_ipv6(head + network, noted, &packet->flow, &total, &tcp);
	} else {
		return false;
	}
	if (!ip_len || (noted && noted != ip_len))
		return false;
	if (unlikely(ip_len != behind) &&
	    bpf_probe_read_kernel(&tcp, sizeof(tcp), head + network + ip_len))
		return false;
	packet->flow.sport = bpf_ntohs(tcp.source);
	packet->flow.dport = bpf_ntohs(tcp.dest);
	packet->seq = bpf_ntohl(tcp.seq);
	packet->ack = bpf_ntohl(tcp.ack);
	packet->flags = tcp.flags;
	packet->len = end - network;
	if (total && total < packet->len) /* the rest pads a short Ethernet frame */
		packet->len = total;
	packet->payload = packet->len - ip_len - (tcp.offset >> 4) * 4;
	if (packet->payload > packet->len) /* truncated, or no header yet */
		packet->payload = 0;
	return true;
}

/* Whether a packet is a SYN that TCP has taken off its device. */
static __always_inline bool is_received_syn(struct sk_buff *skb)
{
	u16 protocol = READ(skb, protocol);
	u8 flags = 0;

	if (READ(skb, dev) || !READ(skb, skb_iif))
		return false;
	if (protocol != bpf_htons(ETH_P_IP) && protocol != bpf_htons(ETH_P_IPV6))
		return false;
	bpf_probe_read_kernel(&flags, sizeof(flags),
			      READ(skb, head) + READ(skb, transport_header) + TCP_FLAGS_OFFSET);
	return (flags & (RECEIVED_SYN | RECEIVED_ACK)) == RECEIVED_SYN;
}

#endif
