// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Connections, from establishment to their end. */
#include "base/flow.bpf.h"
#include "life/private.bpf.h"
#include "life/ends.bpf.h"
#include "count/count.bpf.h"
#include "filter/cgroup_events.bpf.h"
#include "life/living.bpf.h"

SET_STATE_PROGRAMS(state, life_on_state)
TRACEPOINT_PROGRAM(receive_reset, tcp_receive_reset, WITH(struct sock *sk), on_receive_reset(sk))
/* Of think times, at each segment of an established connection: loaded where they are asked for. */
TRACEPOINT_PROGRAM(turns, tcp_probe, WITH(struct sock *sk, struct sk_buff *skb),
		   WITH_PERF_FLUSH(ctx, life_on_probe(sk, skb)))
#if TYPED
TRACEPOINT_PROGRAM(send_reset, tcp_send_reset, WITH(struct sock *sk), on_send_reset(ctx, sk))
TRACEPOINT_PROGRAM(destroy, tcp_destroy_sock, WITH(struct sock *sk), (end_waiting(sk, 0), 0))
#endif

char LICENSE[] SEC("license") = "Dual BSD/GPL";
