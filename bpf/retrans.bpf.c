// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Segments, SYNs and SYN-ACKs that TCP sent again: owner and cause. */
#include "retrans/resends.bpf.h"
#include "filter/cgroup_events.bpf.h"

/* The first program to attach: of a connection that `state` sees begin, it sees all drops. */
TRACEPOINT_PROGRAM(drop, kfree_skb, WITH(struct sk_buff *skb, void *location),
		   retrans_on_drop(skb, caller_of_free(ctx, (u64)location), reason_in(ctx),
				   rx_sk_in(ctx)))
TRACEPOINT_PROGRAM(syn_arrived, consume_skb, WITH(struct sk_buff *skb), retrans_on_consume(skb))
TRACEPOINT_PROGRAM(retransmit, tcp_retransmit_skb, WITH(struct sock *sk, struct sk_buff *skb),
		   WITH_PERF_FLUSH(ctx, on_segment(sk, skb,
						   retrans_config.arguments > 2
							   ? optional_argument(ctx, 2)
							   : 0)))
TRACEPOINT_PROGRAM(retransmit_synack, tcp_retransmit_synack,
		   WITH(struct sock *sk, struct request_sock *request),
		   WITH_PERF_FLUSH(ctx, on_synack(sk, request)))
TRACEPOINT_PROGRAM(state, inet_sock_set_state, WITH(struct sock *sk, int oldstate, int newstate),
		   WITH_PERF_FLUSH(ctx, retrans_on_state(sk, oldstate, newstate)))

char LICENSE[] SEC("license") = "Dual BSD/GPL";
