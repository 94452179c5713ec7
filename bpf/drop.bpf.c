// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* TCP packets that the kernel dropped: owner, location and reason. */
#include "drop/drops.bpf.h"
#include "filter/cgroup_events.bpf.h"

TRACEPOINT_PROGRAM(drop, kfree_skb, WITH(struct sk_buff *skb, void *location),
		   WITH_PERF_FLUSH(ctx, drop_on_drop(ctx, skb, caller_of_free(ctx, (u64)location),
						     reason_in(ctx), rx_sk_in(ctx))))

TRACEPOINT_PROGRAM(syn_drop, consume_skb, WITH(struct sk_buff *skb),
		   WITH_PERF_FLUSH(ctx, drop_on_consume(ctx, skb,
							drop_config.consume_arguments > 1
								? optional_argument(ctx, 1)
								: 0)))

TRACEPOINT_PROGRAM(state, inet_sock_set_state, WITH(struct sock *sk, int oldstate, int newstate),
		   WITH_PERF_FLUSH(ctx, drop_on_state(sk, oldstate, newstate)))

char LICENSE[] SEC("license") = "Dual BSD/GPL";
