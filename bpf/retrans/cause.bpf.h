/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Why TCP sends a segment again, and how often it has. */
#ifndef CGNET_RETRANS_CAUSE_BPF_H
#define CGNET_RETRANS_CAUSE_BPF_H

#include "base/payload.bpf.h"
#include "owner/slots.bpf.h"
#include "abi/retrans.h"

/* include/net/inet_connection_sock.h */
#define ICSK_TIME_LOSS_PROBE 5
/* include/uapi/linux/tcp.h: enum tcp_ca_state */
#define CA_RECOVERY 3
#define CA_LOSS 4
/* include/net/tcp.h */
#define TCPHDR_SYN 0x02
#define TCPHDR_ACK 0x10

/*
 * The retransmission timer clears icsk_pending before it sends, a tail loss probe after it. Segments that ACKs
 * trigger are sent in TCP_CA_Recovery, or in TCP_CA_Loss after the first segment.
 */
static __always_inline u8 cause_of(struct tcp_sock *tp, struct sk_buff *skb)
{
	u32 flags = READ(control_block(skb), tcp_flags);
	u32 state = READ_BITFIELD(tp, inet_conn.icsk_ca_state);
	u32 pending = READ(tp, inet_conn.icsk_pending);

	if (flags & TCPHDR_SYN)
		return flags & TCPHDR_ACK ? RETRANS_SYNACK : RETRANS_SYN;
	if (state == CA_LOSS)
		return pending ? RETRANS_SLOW_START : RETRANS_TIMEOUT;
	if (state != CA_RECOVERY && pending == ICSK_TIME_LOSS_PROBE)
		return RETRANS_TAIL_LOSS_PROBE;
	return RETRANS_FAST;
}

struct resent_segment {
	u64 sock;
	u32 seq;
	u32 pad;
};

struct resends {
	u64 last_ns;
	u32 count;
	u32 pad;
};

/* Resends of segments, by their first byte. The kernel itself has only the socket's total. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct resent_segment);
	__type(value, struct resends);
} resent_segments SEC(".maps");

/* Count a resend of a segment at `now`; return how many there were, and when the last one was (0: none). */
static __always_inline u32 next_attempt(struct sock *sk, u32 seq, u64 now, u64 *last_ns)
{
	struct resends first = {.last_ns = now, .count = 1}, *known;
	struct resent_segment key = {.seq = seq};

	key.sock = TYPED ? object_address(sk) : (u64)sk;
	known = bpf_map_lookup_elem(&resent_segments, &key);
	if (!known) {
		*last_ns = 0;
		bpf_map_update_elem(&resent_segments, &key, &first, BPF_ANY);
		return 1;
	}
	*last_ns = known->last_ns;
	known->last_ns = now;
	return ++known->count; /* under the socket's lock */
}

#endif
