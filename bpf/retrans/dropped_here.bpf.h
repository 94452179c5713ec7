/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Keep the packets that this host drops, and decide for each resend whether one of them was the reason. */
#ifndef CGNET_RETRANS_DROPPED_HERE_BPF_H
#define CGNET_RETRANS_DROPPED_HERE_BPF_H

#include "owner/veth.bpf.h"
#include "retrans/cause.bpf.h"
#include "retrans/dropped_packets.bpf.h"

CONFIG(retrans_config);
CONFIG(class_config);

/* linux/if_ether.h, linux/in.h */
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8
#define ETH_P_MPLS 0x8847
#define ETH_P_PPP 0x8864
#define PROTO_IPIP 4
#define PROTO_UDP 17
#define PROTO_IPV6 41
#define PROTO_GRE 47
#define PROTO_ESP 50

#define OPTION_TS 0x0101080a /* two bytes of padding, and the option's head: RFC 7323, appendix A */
#define OPTION_MSS 2	     /* first in a SYN */
#define MAX_COALESCED (1 << 24)
/* Between the sending of a SYN-ACK and its tracepoint; its timer takes at least a second. */
#define SYNACK_SENDING_NS 5000000ULL

/* Resends for which it is unknown, by enum drop_unknown. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DROP_UNKNOWN_COUNT);
	__type(key, u32);
	__type(value, u64);
} unknown_drops SEC(".maps");

/* -- drops */

/* UDP ports of VXLAN (IANA's and Linux's), GENEVE, WireGuard and IPsec. */
static __always_inline bool is_tunnel_port(u16 port)
{
	return port == 4789 || port == 8472 || port == 6081 || port == 51820 || port == 4500;
}

/* Whether a packet that is not TCP may carry a TCP packet, or a part of one. */
static __always_inline bool may_hide_tcp(struct sk_buff *skb)
{
	unsigned char *at = READ(skb, head) + READ(skb, network_header);
	u16 kind = bpf_ntohs(READ(skb, protocol));
	struct ipv4_tcp_start v4 = {};
	struct ipv6_tcp_start v6 = {};
	u8 protocol;
	u16 port;

	if (kind == ETH_P_IP) {
		if (bpf_probe_read_kernel(&v4, sizeof(v4), at))
			return false;
		if (v4.ip.frag_off & bpf_htons(IP_OFFSET))
			return v4.ip.protocol == IPPROTO_TCP;
		protocol = v4.ip.protocol;
		port = v4.tcp.dest;
	} else if (kind == ETH_P_IPV6) {
		if (bpf_probe_read_kernel(&v6, sizeof(v6), at))
			return false;
		protocol = v6.ip.nexthdr;
		port = v6.tcp.dest;
	} else {
		return kind == ETH_P_8021Q || kind == ETH_P_8021AD || kind == ETH_P_MPLS ||
		       kind == ETH_P_PPP;
	}
	if (protocol == PROTO_UDP)
		return is_tunnel_port(bpf_ntohs(port));
	return protocol == PROTO_IPIP || protocol == PROTO_IPV6 || protocol == PROTO_GRE ||
	       protocol == PROTO_ESP;
}

static __always_inline void note_hidden(u64 now)
{
	struct drop_knowledge *knowledge = bpf_map_lookup_elem(&drop_knowledge, &(u32){0});

	if (knowledge)
		knowledge->hidden_ns = now;
}

/* Linux puts the option behind padding, or in a SYN behind the MSS and the offer of SACK. */
static __always_inline void read_timestamps(struct sk_buff *skb, u8 family,
					    struct dropped_packet *packet)
{
	u16 network = READ(skb, network_header), transport = READ(skb, transport_header);
	u32 at = network + (family == 4 ? sizeof(struct ipv4_start) : sizeof(struct ipv6_start));
	u32 words[4] = {};

	if (transport != NOT_SET && transport > network)
		at = transport;
	bpf_probe_read_kernel(words, sizeof(words),
			      READ(skb, head) + at + sizeof(struct tcp_start) + 4);
	if (bpf_ntohl(words[0]) == OPTION_TS) {
		packet->tsval = bpf_ntohl(words[1]);
		packet->tsecr = bpf_ntohl(words[2]);
	} else if (bpf_ntohl(words[0]) >> 24 == OPTION_MSS &&
		   (bpf_ntohl(words[1]) & 0xffff) == (OPTION_TS & 0xffff)) {
		packet->tsval = bpf_ntohl(words[2]);
		packet->tsecr = bpf_ntohl(words[3]);
	} else {
		return;
	}
	packet->timestamps = 1;
}

/* The receiver's TCP may have merged later segments into this one: its control block has the last number. */
static __always_inline u32 end_of(struct sk_buff *skb, const struct packet *packet)
{
	u32 end = packet->seq + packet->payload + !!(packet->flags & FLAG_SYN) +
		  !!(packet->flags & FLAG_FIN);
	struct tcp_skb_cb *control = control_block(skb);
	u32 merged = READ(control, end_seq);

	if (READ(control, seq) == packet->seq && merged - end < MAX_COALESCED)
		return merged;
	return end;
}

/* State of the socket that the packet was for, or of the one that sent it. */
static __always_inline void state_at_drop(struct sk_buff *skb, struct sock *rx_sk,
					  const struct packet *packet, struct drop *drop)
{
	struct sock *sk = READ(skb, sk) ?: rx_sk;
	struct net_device *dev;

	if (sk)
		drop->tcp_state = READ(sk, __sk_common.skc_state);
	if (rx_sk && drop->tcp_state == TCP_TIME_WAIT)
		drop->new_data = is_new_data(rx_sk, packet);
	if (sockets_are_told() || drop->tcp_state || !is_receiving_code(drop->location) ||
	    !may_be_of_time_wait(drop))
		return;
	dev = device_of_route(skb);
	if (dev && came_to_time_wait(drop, packet, BPF_CORE_READ(dev, nd_net.net, ns.inum)))
		drop->tcp_state = TCP_TIME_WAIT;
}

/* Whether TCP has the packet's data already, or the packet is part of a healthy close. */
static __always_inline bool is_no_loss(struct sk_buff *skb, struct sock *rx_sk,
				       const struct packet *packet, struct drop *drop)
{
	if (unlikely(is_overflow(drop->reason, rx_sk))) {
		drop->reason = class_config.overflow_reason;
		return false;
	}
	drop->payload = packet->payload;
	drop->tcp_flags = packet->flags;
	state_at_drop(skb, rx_sk, packet, drop);
	FORGET_VALUES(drop);
	return class_of(drop) == DROP_BENIGN;
}

static __always_inline int retrans_on_drop(struct sk_buff *skb, u64 location, u32 reason,
					   struct sock *rx_sk)
{
	struct drop drop = {.reason = reason};
	struct dropped_packet dropped = {};
	struct packet packet = {};

	if (!read_packet(skb, &packet)) {
		if (may_hide_tcp(skb))
			note_hidden(bpf_ktime_get_ns());
		return 0;
	}
	if (packet.flags & FLAG_RST)
		return 0;
	FORGET_VALUES(&packet);
	drop.location = location;
	if (is_no_loss(skb, rx_sk, &packet, &drop))
		return 0;
	dropped.ts_ns = bpf_ktime_get_ns();
	dropped.flow = hash_of_ends(packet.flow.saddr, packet.flow.sport, packet.flow.daddr,
				    packet.flow.dport);
	dropped.location = drop.location;
	dropped.reason = drop.reason;
	dropped.seq = packet.seq;
	dropped.end = end_of(skb, &packet);
	dropped.ack = packet.ack;
	dropped.flags = packet.flags;
	read_timestamps(skb, packet.flow.family, &dropped);
	FORGET_VALUES(&dropped);
	keep_dropped(&dropped);
	return 0;
}

/* -- SYNs that arrived */

/*
 * A listener whose queue is full frees a SYN as it frees one that it takes: by consume_skb, without a reason.
 * LRU hash of the times by sequence number, which address translation keeps.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, u32);
	__type(value, u64);
} arrived_syns SEC(".maps");

static __always_inline int retrans_on_consume(struct sk_buff *skb)
{
	struct packet packet = {};
	u64 now;

	if (likely(!is_received_syn(skb)) || !read_packet(skb, &packet))
		return 0;
	now = bpf_ktime_get_ns();
	bpf_map_update_elem(&arrived_syns, &packet.seq, &now, BPF_ANY);
	return 0;
}

static __always_inline bool has_arrived(const struct resend *resend)
{
	u32 seq = resend->seq;
	u64 *known = bpf_map_lookup_elem(&arrived_syns, &seq);

	return known && *known >= resend->since_ns && *known < resend->until_ns;
}

/* -- resends */

static __always_inline void count_unknown(u32 why)
{
	u64 *count = bpf_map_lookup_elem(&unknown_drops, &why);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline u32 why_unknown(const struct found_drop *found, const struct resend *resend)
{
	const struct drop_knowledge *knowledge = bpf_map_lookup_elem(&drop_knowledge, &(u32){0});

	if (found->rank)
		return UNKNOWN_AMBIGUOUS;
	if (!knowledge || !knowledge->since_ns ||
	    (!resend->seen && resend->earliest_ns < knowledge->since_ns))
		return UNKNOWN_BEFORE_START;
	if (found->no_room || knowledge->long_ns >= resend->earliest_ns)
		return UNKNOWN_NO_ROOM;
	if (knowledge->hidden_ns >= resend->earliest_ns)
		return UNKNOWN_HIDDEN;
	if (resend->syn && has_arrived(resend))
		return UNKNOWN_ARRIVED;
	return DROP_UNKNOWN_COUNT;
}

static __always_inline void judge(struct resend *resend, struct retrans *retrans)
{
	const struct dropped_packet *packet;
	struct found_drop found = {};
	u32 why;

	FORGET_VALUES(resend);
	find_dropped(resend, &found);
	packet = found.rank ? dropped_at(found.at) : NULL;
	if (packet && ((found.rank & RANK_EXACT) || !found.ambiguous)) {
		retrans->dropped = found.rank & RANK_SEGMENT ? DROPPED_SEGMENT : DROPPED_ANSWER;
		retrans->drop_location = packet->location;
		retrans->drop_reason = packet->reason;
		return;
	}
	why = why_unknown(&found, resend);
	if (why == DROP_UNKNOWN_COUNT)
		retrans->dropped = DROPPED_ELSEWHERE;
	else
		count_unknown(why);
}

static __always_inline void ends_of_resend(const struct flow *flow, struct resend *resend)
{
	resend->flow = hash_of_ends(flow->saddr, flow->sport, flow->daddr, flow->dport);
	resend->back = hash_of_ends(flow->daddr, flow->dport, flow->saddr, flow->sport);
}

static __always_inline bool has_microseconds(struct tcp_sock *tp)
{
	return bpf_core_field_exists(tp->tcp_usec_ts) && READ_BITFIELD(tp, tcp_usec_ts);
}

/*
 * How long ago the first copy of a segment left, at most: the timer would have fired, unless acknowledgements of
 * earlier segments restarted it, or since then TCP has been sending again what the first loss left behind.
 */
static __always_inline u64 age_limit_ns(struct tcp_sock *tp, const struct retrans *retrans, u64 now)
{
	u64 age = (u64)retrans->rto_us + retrans->srtt_us + 10000;
	u32 stamp = READ(tp, retrans_stamp);

	if (stamp && !has_microseconds(tp))
		age += (u32)((u32)(now / NSEC_PER_MSEC) - stamp) * 1000ULL;
	age *= NSEC_PER_USEC;
	return age < MAX_RESEND_NS ? age : MAX_RESEND_NS;
}

/* Find the drop that a segment is sent again for. `before`: when it was last sent again. */
static __noinline int find_drop_of_segment(struct tcp_sock *tp, struct sk_buff *skb,
					   const struct flow *flow, u64 before,
					   struct retrans *retrans)
{
	struct tcp_skb_cb *control = control_block(skb);
	u64 now = bpf_ktime_get_ns(), age = age_limit_ns(tp, retrans, now);
	struct resend resend = {};

	resend.seen = before || retrans->role;
	resend.earliest_ns = before ?: now - age;
	resend.since_ns = before ?: now - 2 * age;
	resend.until_ns = READ(tp, tcp_clock_cache);
	resend.seq = retrans->seq;
	resend.end = READ(control, end_seq);
	resend.snd_nxt = READ(tp, snd_nxt);
	resend.rcv_nxt = READ(tp, rcv_nxt);
	resend.ts_offset = READ(tp, tsoffset);
	resend.microseconds = has_microseconds(tp);
	resend.syn = retrans->cause == RETRANS_SYN || retrans->cause == RETRANS_SYNACK;
	resend.knows_peer = retrans->cause != RETRANS_SYN;
	ends_of_resend(flow, &resend);
	judge(&resend, retrans);
	return 0;
}

/* The same for a SYN-ACK. TCP keeps the time of the first one. */
static __noinline int find_drop_of_synack(struct request_sock *request, const struct flow *flow,
					  u64 before, u64 now, struct retrans *retrans)
{
	struct tcp_request_sock *tcp_request = (void *)request;
	struct resend resend = {.syn = 1, .knows_peer = 1, .seen = before != 0};
	u64 sending = SYNACK_SENDING_NS;

	barrier_var(sending); /* or a test takes the constant for a place on the stack */
	resend.earliest_ns = before ?: BPF_CORE_READ(tcp_request, snt_synack) * NSEC_PER_USEC;
	resend.since_ns = resend.earliest_ns - sending;
	resend.until_ns = now - sending;
	resend.seq = retrans->seq;
	resend.end = resend.snd_nxt = retrans->seq + 1;
	resend.rcv_nxt = BPF_CORE_READ(tcp_request, rcv_nxt);
	resend.ts_offset = BPF_CORE_READ(tcp_request, ts_off);
	ends_of_resend(flow, &resend);
	judge(&resend, retrans);
	return 0;
}

#endif
