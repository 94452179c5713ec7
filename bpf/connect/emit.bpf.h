/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Report, or count, a connection that was established or failed to be. */
#ifndef CGNET_CONNECT_EMIT_BPF_H
#define CGNET_CONNECT_EMIT_BPF_H

#include "count/count.bpf.h"
#include "count/histogram.bpf.h"
#include "filter/filter.bpf.h"
#include "peer/identity.bpf.h"
#include "abi/connect.h"

CROSSES_TO_USER_SPACE(connect_event);
CONFIG(connect_config);
CONFIG(count_config);

static __always_inline void count_connection(const struct owner *owner, const struct flow *flow,
					     const struct outcome *outcome)
{
	struct count_key key = {};

	count_by_owner(&key, owner);
	count_by_flow(&key, flow);
	if (count_config.by & BY_ROLE)
		key.role = outcome->role;
	if (count_config.by & BY_RESULT)
		key.result = outcome->result;
	if (count_config.histogram)
		histogram_add(&key, outcome->latency_ns / NSEC_PER_USEC);
	else
		count(&key);
}

/* The filters on the owner were applied when it was recorded. */
static __always_inline void emit_connection(struct sock *sk, u64 now, const struct owner *owner,
					    const struct flow *flow, const struct outcome *outcome,
					    struct tcp_sock *tp)
{
	struct connect_event *event;

	if (outcome->latency_ns < connect_config.min_ns || !result_passes(outcome->result) ||
	    !flow_passes(TYPED, sk, flow))
		return;
	if (counts_instead()) {
		count_connection(owner, flow, outcome);
		return;
	}
	event = reserve_in(outcome->result == RESULT_OK ? RING_CONNECTS : RING_FAILURES,
			   sizeof(*event), RECORD_CONNECT, now, LOST_RING);
	if (!event)
		return;
	event->owner = *owner;
	event->flow = *flow;
	event->outcome = *outcome;
	if (outcome->tcp_state == TCP_ESTABLISHED)
		identity_at_start(tp, outcome->role, &event->identity);
	else
		no_identity(&event->identity);
	submit(event);
}

#endif
