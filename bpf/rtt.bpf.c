// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Round-trip times, as the stack measured them. */
#include "rtt/samples.bpf.h"
#include "filter/cgroup_events.bpf.h"

TRACEPOINT_PROGRAM(probe, tcp_probe, WITH(struct sock *sk), WITH_PERF_FLUSH(ctx, on_probe(sk)))
TRACEPOINT_PROGRAM(state, inet_sock_set_state, WITH(struct sock *sk, int oldstate, int newstate),
		   WITH_PERF_FLUSH(ctx, rtt_on_state(sk, oldstate, newstate)))

char LICENSE[] SEC("license") = "Dual BSD/GPL";
