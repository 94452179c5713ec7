/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Payload of a connection: bytes that were acknowledged, and received in order. */
#ifndef CGNET_BASE_PAYLOAD_BPF_H
#define CGNET_BASE_PAYLOAD_BPF_H

#include "base/flow.bpf.h"
#include "abi/flow.h"

/* Bits of sk_flags. */
#define SOCK_DEAD 0 /* the application has closed it */
#define SOCK_DONE 1 /* TCP has processed the peer's FIN */

static __always_inline bool has_flag(const bool typed, struct sock *sk, u32 flag)
{
	return READ_AS(typed, sk, __sk_common.skc_flags) >> flag & 1;
}

/* include/net/tcp.h */
#define TCPHDR_FIN 0x01

#define STATES_AFTER_OUR_FIN \
	(1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSING | 1 << TCP_LAST_ACK)

static __always_inline bool fin_was_sent(u32 state)
{
	return STATES_AFTER_OUR_FIN >> (state & 31) & 1;
}

/* bytes_acked counts the client's SYN, and our FIN. If the role is unknown: the bytes sent that are not in flight. */
static __always_inline u64 payload_acknowledged(const bool typed, struct tcp_sock *tp, u32 role,
						u32 state)
{
	u32 una = READ_AS(typed, tp, snd_una), end = READ_AS(typed, tp, write_seq),
	    next = READ_AS(typed, tp, snd_nxt);
	u32 fin = fin_was_sent(state);
	u64 bytes, others;

	if (role) {
		bytes = READ_AS(typed, tp, bytes_acked);
		others = (role == ROLE_CLIENT) + (fin && una == end);
		return bytes > others ? bytes - others : 0; /* a restored socket sent no SYN */
	}
	bytes = READ_AS(typed, tp, bytes_sent) - READ_AS(typed, tp, bytes_retrans);
	return bytes - (next - una) + (fin && una != end && next == end);
}

/* TCP's data of a packet that it processes, or that is in its queue. */
static __always_inline struct tcp_skb_cb *control_block(struct sk_buff *skb)
{
	return (void *)skb + bpf_core_field_offset(skb->cb);
}

/* Whether a segment that TCP is about to process has payload that did not come in order before. */
static __always_inline bool has_new_payload(struct tcp_sock *tp, struct sk_buff *skb)
{
	struct tcp_skb_cb *control = control_block(skb);
	u32 end = READ(control, end_seq) - (READ(control, tcp_flags) & TCPHDR_FIN);

	return (s32)(end - READ(tp, rcv_nxt)) > 0;
}

static __always_inline u64 payload_received(const bool typed, struct sock *sk, struct tcp_sock *tp)
{
	return READ_AS(typed, tp, bytes_received) - has_flag(typed, sk, SOCK_DONE);
}

#endif
