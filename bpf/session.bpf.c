// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * All signals over one ledger: one program per hook, one entry per socket. Constants in session_config disable
 * signals, and the verifier removes the dead branches. Typed programs only: older verifiers explore dead branches.
 */
#define IN_SESSION
#define NO_COUNTS

#include "session/state.bpf.h"
#include "session/packets.bpf.h"
#include "filter/cgroup_events.bpf.h"
#include "sums/open.bpf.h"

TRACEPOINT_PROGRAM(dropped, kfree_skb, WITH(struct sk_buff *skb, void *location),
		   drop_on_drop(ctx, skb, caller_of_free(ctx, (u64)location), reason_in(ctx),
				rx_sk_in(ctx)))
TRACEPOINT_PROGRAM(syn_drop, consume_skb, WITH(struct sk_buff *skb),
		   drop_on_consume(ctx, skb,
				   drop_config.consume_arguments > 1 ? optional_argument(ctx, 1)
								     : 0))
TRACEPOINT_PROGRAM(retransmit, tcp_retransmit_skb, WITH(struct sock *sk, struct sk_buff *skb),
		   on_segment(sk, skb,
			      retrans_config.arguments > 2 ? optional_argument(ctx, 2) : 0))
TRACEPOINT_PROGRAM(retransmit_synack, tcp_retransmit_synack,
		   WITH(struct sock *sk, struct request_sock *request), on_synack(sk, request))
TRACEPOINT_PROGRAM(probe, tcp_probe, WITH(struct sock *sk, struct sk_buff *skb),
		   session_on_probe(sk, skb))
TRACEPOINT_PROGRAM(receive_reset, tcp_receive_reset, WITH(struct sock *sk), on_receive_reset(sk))
TRACEPOINT_PROGRAM(send_reset, tcp_send_reset, WITH(struct sock *sk), on_send_reset(ctx, sk))
/* It exists since Linux kernel commit e6a3e4434000 "net: sock: add trace for socket errors" (in v5.14). */
TRACEPOINT_PROGRAM(trace_error, inet_sk_error_report, WITH(struct sock *sk), session_on_error(sk))
SET_STATE_PROGRAMS(state, session_on_state)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
