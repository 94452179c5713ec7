/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Round-trip times, as the stack measured them.
 *
 * The stack keeps no samples, but a smoothed value that each sample changes. tcp_probe fires for every
 * segment of an established connection, before TCP processes it: a change since the last one was a sample,
 * and the smoothing can be undone exactly.
 */
#ifndef CGNET_RTT_SAMPLES_BPF_H
#define CGNET_RTT_SAMPLES_BPF_H

#include "base/flow.bpf.h"
#include "rtt/private.bpf.h"
#include "owner/all_sockets.bpf.h"
#include "count/histogram.bpf.h"
#include "sums/hooks.bpf.h"
#include "abi/rtt.h"

CROSSES_TO_USER_SPACE(rtt_event);
CONFIG(count_config);
CONFIG(rtt_config);

static __always_inline void count_sample(const struct owner *owner, const struct flow *flow,
					 const struct rtt_sample *sample)
{
	struct count_key key = {};

	count_by_owner(&key, owner);
	count_by_flow(&key, flow);
	if (count_config.by & BY_ROLE)
		key.role = sample->role;
	histogram_add(&key, rtt_config.smoothed ? sample->srtt_us : sample->rtt_us);
}

static __always_inline void emit_sample(struct sock *sk, struct tcp_sock *tp,
					const struct ledger_entry *entry, const struct owner *owner,
					const struct rtt_sample *sample)
{
	u32 value = rtt_config.smoothed ? sample->srtt_us : sample->rtt_us;
	struct rtt_event *event;
	struct flow flow;

	if (value * NSEC_PER_USEC < rtt_config.min_ns ||
	    (rtt_config.no_handshakes && sample->handshake))
		return;
	if (tells(SIGNAL_RTT) || filters_flows()) {
		flow_of_sock(TYPED, sk, tp, &flow);
		if (!flow_passes(TYPED, sk, &flow))
			return;
	}
	sum_rtt(owner, sample->rtt_us);
	if (!tells(SIGNAL_RTT))
		return;
	if (counts_instead()) {
		count_sample(owner, &flow, sample);
		return;
	}
	event = reserve_in(RING_SAMPLES, sizeof(*event), RECORD_RTT, bpf_ktime_get_ns(), LOST_RING);
	if (!event)
		return;
	event->owner = *owner;
	event->flow = flow;
	identity_in_life(TYPED, tp, entry, &event->identity);
	event->sample = *sample;
	submit(event);
}

/* Whether this sample alone led from the last values to the present ones: the deviation shows it, too. */
static __always_inline bool made_by(s64 sample, const struct rtt_private *last,
				    const struct rtt_private *now)
{
	s64 error = sample - (last->srtt >> 3);

	if (error < 0) {
		error = -error - (last->mdev >> 2);
		if (error > 0)
			error >>= 3;
	} else {
		error -= last->mdev >> 2;
	}
	return (u32)(last->mdev + error) == now->mdev;
}

/*
 * Sample between two events; -1 if there was none. tcp_rtt_estimator() adds an eighth of the difference to
 * the smoothed value. A sample that equals it changes only the deviation, and one that equals both shows in
 * the acknowledged segment, unless that was sent twice. Of several samples between two events the last one is
 * shown, which RACK has.
 */
static __always_inline s64 sample_since(struct tcp_sock *tp, const struct rtt_private *last,
					const struct rtt_private *now)
{
	s64 sample;

	if (!last->looked || !now->srtt)
		return -1;
	if (now->srtt != last->srtt || now->mdev != last->mdev) {
		if (!last->srtt)
			return now->srtt >> 3;
		sample = (s64)now->srtt - last->srtt + (last->srtt >> 3);
		return made_by(sample, last, now) ? sample : READ(tp, rack.rtt_us);
	}
	if (now->acked_at != last->acked_at && now->retrans == last->retrans)
		return now->srtt >> 3;
	return -1;
}

/* tcp_probe fires in TCP_ESTABLISHED only. Later samples are seen together, at the next state. */
static __always_inline void look(struct sock *sk, struct ledger_entry *entry, u32 state)
{
	struct tcp_sock *tp = tcp_sock_of(sk);
	const struct holder *holder = holder_of(entry);
	struct rtt_private *last = &entry->private.rtt;
	struct rtt_private now = {.looked = 1};
	struct rtt_sample sample = {};
	s64 rtt;

	if (!tp || !holder->wanted || !role_passes(entry->role))
		return;
	now.srtt = READ(tp, srtt_us);
	now.mdev = READ(tp, mdev_us);
	now.acked_at = READ(tp, rack.mstamp);
	now.retrans = READ(tp, total_retrans);
	rtt = sample_since(tp, last, &now);
	*last = now;
	if (rtt < 0)
		return;
	sample.rtt_us = rtt;
	sample.srtt_us = now.srtt >> 3;
	sample.tcp_state = state;
	sample.role = entry->role;
	emit_sample(sk, tp, entry, &holder->owner, &sample);
}

/* The handshake's round trip is the first smoothed value. */
static __always_inline void look_first(struct sock *sk, struct ledger_entry *entry)
{
	struct tcp_sock *tp = tcp_sock_of(sk);
	const struct holder *holder = holder_of(entry);
	struct rtt_private *last = &entry->private.rtt;
	struct rtt_sample sample = {};

	if (!tp)
		return;
	last->looked = 1;
	last->srtt = READ(tp, srtt_us);
	last->mdev = READ(tp, mdev_us);
	last->acked_at = READ(tp, rack.mstamp);
	last->retrans = READ(tp, total_retrans);
	if (!last->srtt || !holder->wanted || !role_passes(entry->role))
		return;
	sample.rtt_us = sample.srtt_us = last->srtt >> 3;
	sample.tcp_state = TCP_ESTABLISHED;
	sample.role = entry->role;
	sample.handshake = 1;
	emit_sample(sk, tp, entry, &holder->owner, &sample);
}

static __always_inline int on_probe(struct sock *sk)
{
	struct ledger_entry *entry = ledger_of(true, sk);

	if (entry)
		look(sk, entry, TCP_ESTABLISHED);
	return 0;
}

static __always_inline int rtt_on_state(struct sock *sk, int oldstate, int newstate)
{
	struct ledger_entry *entry;

	if (!is_tcp(sk))
		return 0;
	ledger_on_state(sk, oldstate, newstate);
	if (newstate == TCP_SYN_SENT || newstate == TCP_SYN_RECV || newstate == TCP_LISTEN ||
	    oldstate == TCP_LISTEN)
		return 0;
	if (newstate != TCP_ESTABLISHED && (oldstate == TCP_SYN_SENT || oldstate == TCP_SYN_RECV))
		return 0;
	entry = ledger_of(newstate != TCP_CLOSE, sk);
	if (!entry)
		return 0;
	if (newstate == TCP_ESTABLISHED)
		look_first(sk, entry);
	else
		look(sk, entry, oldstate);
	return 0;
}

#endif
