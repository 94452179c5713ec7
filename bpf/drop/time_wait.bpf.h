/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connections in TIME_WAIT, for kernels that do not report the socket of a dropped packet: TCP drops all
 * packets for them, such as the peer's last FIN, and these drops are benign. Their own sockets are closed by
 * then, and no tracepoint has the smaller ones that replace them.
 *
 * kfree_skb has the socket since Linux kernel commit c53795d48ee8 "net: add rx_sk to trace_kfree_skb" (in
 * v6.11).
 */
#ifndef CGNET_DROP_TIME_WAIT_BPF_H
#define CGNET_DROP_TIME_WAIT_BPF_H

#include "base/packet.bpf.h"
#include "abi/drop.h"

CONFIG(packet_config);

#define TIME_WAIT_NS 60000000000ULL /* include/net/tcp.h: TCP_TIMEWAIT_LEN */
#define TCP_FLAG_SYN_BIT 0x02
#define GOLDEN 0x9e3779b97f4a7c15ULL /* 2^64 / golden ratio: multiplicative hash */

struct time_wait {
	u64 since;   /* start, or time of its last packet */
	u32 rcv_nxt; /* at that time: data beyond it is new */
	u32 pad;
};

/* LRU hash of connections in TIME_WAIT, by both ends: the one idle for longest is evicted. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, u64);
	__type(value, struct time_wait);
} time_waits SEC(".maps");

static __always_inline bool sockets_are_told(void)
{
	return packet_config.drop_arguments > 3;
}

static __always_inline u64 spread(u64 so_far, const void *bytes)
{
	const u32 *words = bytes;

	for (u32 i = 0; i < 4; i++) {
		so_far = (so_far ^ words[i]) * GOLDEN;
		so_far ^= so_far >> 32;
	}
	return so_far;
}

/* Key of a connection's end: a 64-bit hash of its namespace, addresses and ports. */
static __always_inline u64 key_of_end(u32 netns, const void *local, u16 local_port,
				      const void *remote, u16 remote_port)
{
	u64 key = (u64)netns << 32 | (u32)local_port << 16 | remote_port;

	return spread(spread(key * GOLDEN, local), remote);
}

/* Handle a socket that closes: TIME_WAIT follows these states, unless there was an error. */
static __always_inline void remember_time_wait(struct sock *sk, int oldstate, int newstate)
{
	struct flow flow = {};
	struct time_wait value = {};
	u64 key;

	if (sockets_are_told() || newstate != TCP_CLOSE || oldstate == TCP_LISTEN)
		return;
	/* No typed loads: 6.1 rejects the address arithmetic that clang mixes with them. */
	flow_of_sock(false, sk, (struct tcp_sock *)sk, &flow);
	key = key_of_end(flow.netns, flow.saddr, flow.sport, flow.daddr, flow.dport);
	if ((oldstate != TCP_FIN_WAIT2 && oldstate != TCP_CLOSING) || READ(sk, sk_err)) {
		bpf_map_delete_elem(&time_waits, &key); /* same ends as a previous connection */
		return;
	}
	value.since = bpf_ktime_get_ns();
	value.rcv_nxt = BPF_CORE_READ((struct tcp_sock *)sk, rcv_nxt);
	bpf_map_update_elem(&time_waits, &key, &value, BPF_ANY);
}

static __always_inline bool has_data_beyond(const struct packet *packet, u32 rcv_nxt)
{
	return packet->payload && (s32)(packet->seq + packet->payload - rcv_nxt) > 0;
}

/*
 * Whether a packet came to a connection in TIME_WAIT; sets whether it has new data. If drops have no reasons,
 * a SYN may be for a port without a listener: it is shown.
 */
static __always_inline bool came_to_time_wait(struct drop *drop, const struct packet *packet,
					      u32 netns)
{
	const struct flow *flow = &packet->flow;
	struct time_wait *known;
	u64 key, now;

	if ((packet->flags & TCP_FLAG_SYN_BIT) && packet_config.drop_arguments < 3)
		return false;
	key = key_of_end(netns, flow->daddr, flow->dport, flow->saddr, flow->sport);
	known = bpf_map_lookup_elem(&time_waits, &key);
	if (!known)
		return false;
	now = bpf_ktime_get_ns();
	if (now - known->since > TIME_WAIT_NS)
		return false;
	known->since = now;
	drop->new_data = has_data_beyond(packet, known->rcv_nxt);
	return true;
}

/* Parts of the kernel's struct inet_timewait_sock, which begins with struct sock_common. */
struct inet_timewait_sock___part {
	unsigned char tw_substate;
} __attribute__((preserve_access_index));

struct sock_common___of_time_wait {
	u32 skc_tw_rcv_nxt;
} __attribute__((preserve_access_index));

/*
 * Whether data is new to a socket in TIME_WAIT, where kfree_skb has the socket. A socket that only waits for
 * its peer's FIN has that state, too, and answers new data with a reset; after that FIN none can come. That
 * reset releases the socket before the drop, but its slab is SLAB_TYPESAFE_BY_RCU: a freed one has its values
 * still, and no socket of another kind takes its memory before the packet is through.
 */
static __always_inline bool is_new_data(struct sock *time_wait, const struct packet *packet)
{
	struct inet_timewait_sock___part *part = (void *)time_wait;
	struct sock_common___of_time_wait *common = (void *)time_wait;
	u8 substate = 0;
	u32 rcv_nxt = 0;

	bpf_core_read(&substate, sizeof(substate), &part->tw_substate);
	bpf_core_read(&rcv_nxt, sizeof(rcv_nxt), &common->skc_tw_rcv_nxt);
	return substate == TCP_FIN_WAIT2 && has_data_beyond(packet, rcv_nxt);
}

#endif
