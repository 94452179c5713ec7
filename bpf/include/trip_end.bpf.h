/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The end of a packet's way: whose it is, whether it is wanted, and what is made of it. */
#ifndef CGNET_TRIP_END_BPF_H
#define CGNET_TRIP_END_BPF_H

#include "sums.bpf.h"
#include "trips.bpf.h"

static __always_inline void sum_up(const bool typed, struct stage_sums *sums, struct count_key *key,
				   u32 at, u64 delay_ns)
{
	if (sums && at < CGNET_STAGE_KINDS) {
		barrier_var(at);
		if (at < CGNET_STAGE_KINDS) /* for the verifier */
			histogram_put(typed, &sums->stages[at], delay_ns);
		return;
	}
	key->result = at;
	histogram_add(typed, key, delay_ns);
}

static __always_inline int summarize(const bool typed, const struct trip_event *event)
{
	struct count_key key = {};
	u32 stages = event->trip.stages;
	struct stage_sums *sums;

	count_by_owner(&key, &event->owner);
	count_by_flow(&key, &event->flow);
	if (cfg.count_by & BY_ROLE)
		key.role = event->trip.role;
	sums = typed ? sums_of(&key) : NULL;
	for (u32 i = 1; i < CGNET_STAGES; i++) {
		const struct stage *stage = &event->stages[i];
		const struct stage *before = &event->stages[i - 1];

		if (i >= stages)
			break;
		sum_up(typed, sums, &key, stage->at,
		       stage->ts_ns > before->ts_ns ? stage->ts_ns - before->ts_ns : 0);
	}
	if (event->trip.retrans_ns)
		sum_up(typed, sums, &key, STAGE_RETRANSMIT, event->trip.retrans_ns);
	return 0;
}

/* Not inlined: a packet may end in any program. */
static __noinline int summarize_typed(const struct trip_event *event)
{
	return summarize(true, event);
}

static __noinline int summarize_raw(const struct trip_event *event)
{
	return summarize(false, event);
}

static __always_inline bool is_slow(const struct trip_event *event)
{
	u32 stages = event->trip.stages;
	u64 total = 0;
	bool slow = !cfg.slow_stage;

	for (u32 i = 1; i < CGNET_STAGES; i++) {
		const struct stage *stage = &event->stages[i];
		u64 delta;

		if (i >= stages)
			break;
		delta = stage->ts_ns - event->stages[i - 1].ts_ns;
		if ((s64)delta < 0)
			continue;
		total += delta;
		if (stage->at == cfg.slow_stage && delta > cfg.slow_stage_ns)
			slow = true;
	}
	return slow && total >= cfg.least_ns;
}

static __always_inline bool trip_passes(const struct trip_event *event)
{
	if (cfg.by_end && !(cfg.by_end >> (event->trip.end & 31) & 1))
		return false;
	if (cfg.retransmitted && !event->trip.retransmitted)
		return false;
	return (!cfg.least_ns && !cfg.slow_stage) || is_slow(event);
}

/* A packet within the host has two owners: it is shown as the one's that was asked for, the sender first. */
static __always_inline bool choose_owner(struct journey *journey)
{
	struct trip *trip = &journey->event.trip;
	bool received = journey->receiver.owner.source != OWNER_UNKNOWN;

	if (trip->sent && journey->wanted_sender &&
	    (!received || journey->event.owner.source != OWNER_UNKNOWN))
		return true;
	if (!received)
		return !trip->sent && unknown_owner_passes();
	if (!journey->receiver.wanted)
		return false;
	journey->event.owner = journey->receiver.owner;
	if (trip->sent && trip->role)
		trip->role = ROLE_CLIENT + ROLE_SERVER - trip->role;
	return true;
}

/* `within`: the caller has a frame of its own, and old verifiers have no room for another one below it. */
static __always_inline void trip_ends_here(const bool typed, const bool within,
					   struct journey *journey, u32 end)
{
	struct trip_event *event = &journey->event;
	u64 size = event->trip.stages; /* as wide as a register: see docs/design/objects.md */

	event->trip.end = end;
	event->head.ts_ns = bpf_ktime_get_ns();
	if (!choose_owner(journey) || !trip_passes(event))
		return;
	if (cfg.count) {
		if (within)
			summarize(typed, event);
		else if (typed)
			summarize_typed(event);
		else
			summarize_raw(event);
		return;
	}
	if (size > CGNET_STAGES)
		size = CGNET_STAGES;
	size = sizeof(*event) - (CGNET_STAGES - size) * sizeof(struct stage);
	barrier_var(size);
	if (size > sizeof(*event))
		return;
	submit_copy(event, size, LOST_RING);
}

static __always_inline void trip_ends(const bool typed, struct journey *journey, u32 end)
{
	trip_ends_here(typed, false, journey, end);
}

/* Not inlined: each stage may find that a packet's end was missed. */
static __noinline int was_missed_typed(struct journey *journey)
{
	trip_ends_here(true, true, journey,
		       journey->event.trip.payload ? TRIP_GOES_ON : TRIP_CONSUMED);
	return 0;
}

static __noinline int was_missed_raw(struct journey *journey)
{
	trip_ends_here(false, true, journey,
		       journey->event.trip.payload ? TRIP_GOES_ON : TRIP_CONSUMED);
	return 0;
}

/* Another packet has the address now: TCP is done with the one that had it, or merged it with another. */
static __always_inline void was_missed(const bool typed, struct sk_buff *skb,
				       struct journey *journey)
{
	if (may_be_merged(journey) && set_aside(skb, journey))
		; /* TCP gets to it yet */
	else if (typed)
		was_missed_typed(journey);
	else
		was_missed_raw(journey);
	trip_forget(typed, skb);
}

#endif
