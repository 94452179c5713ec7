/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* End of a packet: determine its owner, apply the filters, and report or count it. */
#ifndef CGNET_TRACE_FINISH_BPF_H
#define CGNET_TRACE_FINISH_BPF_H

#include "count/percpu_histograms.bpf.h"
#include "trace/in_flight.bpf.h"

CONFIG(count_config);
CONFIG(trace_config);

/* Side whose owner a packet is shown with. */
enum shown {
	SHOWN_NOT = 0,
	SHOWN_SENDER = 1,
	SHOWN_RECEIVER = 2,
};

/* User space may have found the name of a new cgroup after its process was recorded as an owner. */
static __always_inline bool is_still_wanted(struct owner *owner, bool wanted)
{
	if (!wanted || !(owner->undecided & UNDECIDED_NAME))
		return wanted;
	owner->undecided &= ~UNDECIDED_NAME;
	return name_passes(owner);
}

/*
 * A packet within the host has two owners: show the one that the filters select, the sender first. User space
 * may discard a packet with an undecided owner: if the filters certainly select the other owner, show that
 * one.
 */
static __always_inline u32 shown_as(struct in_flight_packet *in_flight)
{
	struct packet_trace *trace = &in_flight->event.trace;
	struct owner *sender = &in_flight->event.owner, *receiver = &in_flight->receiver.owner;
	bool received = receiver->source != OWNER_UNKNOWN;
	bool wanted = received && is_still_wanted(receiver, in_flight->receiver.wanted);

	if (trace->sent && (!received || sender->source != OWNER_UNKNOWN) &&
	    is_still_wanted(sender, in_flight->wanted_sender) &&
	    (!sender->undecided || !wanted || receiver->undecided))
		return SHOWN_SENDER;
	if (received)
		return wanted ? SHOWN_RECEIVER : SHOWN_NOT;
	return !trace->sent && unknown_owner_passes() ? SHOWN_SENDER : SHOWN_NOT;
}

/* Role of the receiving side of a connection, derived from that of the sending side where that is known. */
static __always_inline u8 role_of_receiver(const struct packet_trace *trace)
{
	return trace->sent && trace->role ? ROLE_CLIENT + ROLE_SERVER - trace->role : trace->role;
}

static __always_inline void show_receiver(struct in_flight_packet *in_flight)
{
	struct packet_end *end = &in_flight->event.end;
	u32 local = end->identity.local;

	if (end->is_source) { /* the receiver is the other end */
		end->is_source = 0;
		end->identity.local = end->identity.remote;
		end->identity.remote = local;
	}
	in_flight->event.owner = in_flight->receiver.owner;
	in_flight->event.trace.role = role_of_receiver(&in_flight->event.trace);
}

#define OF_SIDES (BY_CGROUP | BY_SELECTED | BY_PID | BY_COMM | BY_UID | BY_ROLE)

/* Whether a stage belongs to the receiver: its TCP has the packet, or keeps it for the application. */
static __always_inline bool is_at_receiver(u32 at)
{
	return at >= STAGE_TCP_RCV && at <= STAGE_APP_READ;
}

static __always_inline void key_of_side(struct count_key *key, const struct owner *owner, u8 role)
{
	__builtin_memset(&key->owner, 0, sizeof(key->owner));
	count_by_owner(key, owner);
	if (count_config.by & BY_ROLE)
		key->role = role;
}

/* Set the side of a key: the receiver, or the side that the packet is shown with. */
static __always_inline void choose_side(struct count_key *key,
					const struct in_flight_packet *in_flight, bool receives)
{
	const struct trace_event *event = &in_flight->event;

	key_of_side(key, receives ? &in_flight->receiver.owner : &event->owner,
		    receives ? role_of_receiver(&event->trace) : event->trace.role);
}

/* Whether to count each stage for its own side: both are known, and the shown one certainly passes. */
static __always_inline bool has_two_sides(struct in_flight_packet *in_flight, u32 shown)
{
	struct owner *sender = &in_flight->event.owner, *receiver = &in_flight->receiver.owner;

	if (!(count_config.by & OF_SIDES) || !in_flight->event.trace.sent ||
	    sender->source == OWNER_UNKNOWN || receiver->source == OWNER_UNKNOWN ||
	    (shown == SHOWN_SENDER ? sender : receiver)->undecided)
		return false;
	sender->undecided = receiver->undecided = 0;
	return true;
}

static __always_inline u64 delay_of(const struct trace_event *event, u32 number)
{
	u64 delay = event->stages[number].ts_ns - event->stages[number - 1].ts_ns;

	barrier_var(delay);
	return delay & ~((s64)delay >> 63); /* clamp to 0 */
}

#if TYPED
/* Place plus 1 of the sums of a side; 0: none. */
VERIFIED_ONCE int find_sums(const struct in_flight_packet *in_flight, u32 receives)
{
	struct count_key key = {};

	if (!in_flight)
		return 0;
	count_by_flow(&key, &in_flight->event.flow);
	choose_side(&key, in_flight, receives);
	return sums_place(&key);
}

/* The place is a number: the verifier walks the loop over the stages once, not for each sums there may be. */
VERIFIED_ONCE int add_delay(const struct in_flight_packet *in_flight, u32 place, u32 receives,
			    u32 at, u64 delay_ns)
{
	struct stage_sums *sums = sums_at(place);
	struct count_key key = {.result = at};

	if (!in_flight)
		return 0;
	if (likely(sums && at < CGNET_STAGE_KINDS)) {
		histogram_put(&sums->stages[at], delay_ns);
		return 0;
	}
	count_by_flow(&key, &in_flight->event.flow);
	choose_side(&key, in_flight, receives);
	histogram_add(&key, delay_ns);
	return 0;
}

static __always_inline int summarize(struct in_flight_packet *in_flight, u32 shown)
{
	u32 two = has_two_sides(in_flight, shown), here, receivers = 0;
	struct trace_event *event = &in_flight->event;
	u32 stages = event->trace.stages;

	barrier_var(two); /* one path for the verifier, not two */
	if (!two && shown == SHOWN_RECEIVER)
		show_receiver(in_flight);
	if (two)
		receivers = find_sums(in_flight, true);
	here = find_sums(in_flight, false);
	if (event->trace.retrans_ns)
		add_delay(in_flight, here, false, STAGE_RETRANSMIT, event->trace.retrans_ns);
	if (event->trace.answer_ns)
		add_delay(in_flight, here, false, STAGE_ANSWER, event->trace.answer_ns);
	for (u32 i = 1; i < CGNET_STAGES; i++) {
		u32 at, there;

		if (i >= stages)
			break;
		at = event->stages[i].at;
		there = two && is_at_receiver(at);
		add_delay(in_flight, there ? receivers : here, there, at, delay_of(event, i));
	}
	return 0;
}
#else
static __always_inline void sum_up(struct count_key *key, u32 at, u64 delay_ns)
{
	key->result = at;
	histogram_add(key, delay_ns);
}

static __always_inline int summarize(struct in_flight_packet *in_flight, u32 shown)
{
	bool two = has_two_sides(in_flight, shown);
	struct trace_event *event = &in_flight->event;
	u32 stages = event->trace.stages;
	struct count_key key = {};

	barrier_var(two); /* one path for the verifier, not two */
	if (!two && shown == SHOWN_RECEIVER)
		show_receiver(in_flight);
	count_by_flow(&key, &event->flow);
	choose_side(&key, in_flight, false);
	if (event->trace.retrans_ns)
		sum_up(&key, STAGE_RETRANSMIT, event->trace.retrans_ns);
	if (event->trace.answer_ns)
		sum_up(&key, STAGE_ANSWER, event->trace.answer_ns);
	for (u32 i = 1; i < CGNET_STAGES; i++) {
		u32 at = event->stages[i].at;

		if (i >= stages)
			break;
		/* Each time: to compare with the stage before adds a path for verifiers that track constants. */
		if (two)
			choose_side(&key, in_flight, is_at_receiver(at));
		sum_up(&key, at, delay_of(event, i));
	}
	return 0;
}
#endif

/* Not inlined: a packet may end in any program. */
static __noinline int summarize_apart(struct in_flight_packet *in_flight, u32 shown)
{
	return summarize(in_flight, shown);
}

/*
 * Raw programs do this without a branch: a verifier that takes each number for precise walks what follows once
 * for each way out of the loop (before Linux kernel commit be2ef8161572 "bpf: allow precision tracking for
 * programs with subprogs", in v6.2).
 */
static __always_inline bool is_slow(const struct trace_event *event)
{
	u64 stages = event->trace.stages, total = 0, slow = 0;

	for (u64 i = 1; i < CGNET_STAGES; i++) {
		const struct stage *stage = &event->stages[i];
		u64 delta = stage->ts_ns - event->stages[i - 1].ts_ns, mask, others;

		if (TYPED && i >= stages)
			break;
		mask = (s64)((i - stages) & ~delta) >> 63; /* it is there, and not negative */
		barrier_var(mask); /* or the compiler makes branches of it */
		delta &= mask;
		total += delta;
		others = stage->at ^ trace_config.slow_stage;
		slow |= (others - 1) & (trace_config.slow_stage_ns - delta);
	}
	return (!trace_config.slow_stage || slow >> 63) && total >= trace_config.min_ns;
}

static __always_inline bool in_flight_passes(const struct trace_event *event)
{
	if (trace_config.by_end && !(trace_config.by_end >> (event->trace.end & 31) & 1))
		return false;
	if (trace_config.retransmitted && !event->trace.retransmitted)
		return false;
	return (!trace_config.min_ns && !trace_config.slow_stage) || is_slow(event);
}

/* `within`: the caller has a stack frame of its own, and old verifiers have no room for another one below it. */
static __always_inline void in_flight_ends_here(const bool within,
						struct in_flight_packet *in_flight, u32 end)
{
	struct trace_event *event = &in_flight->event;
	u64 size = event->trace.stages; /* as wide as a register: see docs/design/objects.md */
	u32 shown = shown_as(in_flight);

	event->trace.end = end;
	event->head.ts_ns = bpf_ktime_get_ns();
	if (shown == SHOWN_NOT || !in_flight_passes(event))
		return;
	if (count_config.enabled) {
		if (within)
			summarize(in_flight, shown);
		else
			summarize_apart(in_flight, shown);
		return;
	}
	if (shown == SHOWN_RECEIVER)
		show_receiver(in_flight);
	if (size > CGNET_STAGES)
		size = CGNET_STAGES;
	size = sizeof(*event) - (CGNET_STAGES - size) * sizeof(struct stage);
	barrier_var(size);
	if (size > sizeof(*event))
		return;
	submit_copy(event, size, LOST_RING);
}

static __always_inline u32 end_that_was_missed(const struct in_flight_packet *in_flight)
{
	return in_flight->event.trace.payload ? TRACE_GOES_ON : TRACE_CONSUMED;
}

#if TYPED
/*
 * Global function: verified once per program, however many calls it has. Global functions take pointers since
 * Linux kernel commit e5069b9c23b3 "bpf: Support pointers in global func args" (in v5.12).
 */
__noinline int in_flight_ends(struct in_flight_packet *in_flight, u32 end)
{
	if (in_flight)
		in_flight_ends_here(true, in_flight, end);
	return 0;
}

static __always_inline void in_flight_ended(struct in_flight_packet *in_flight)
{
	in_flight_ends(in_flight, end_that_was_missed(in_flight));
}
#else
static __always_inline void in_flight_ends(struct in_flight_packet *in_flight, u32 end)
{
	in_flight_ends_here(false, in_flight, end);
}

/* Not inlined: each stage may detect that a packet's end was missed. */
static __noinline int in_flight_ended(struct in_flight_packet *in_flight)
{
	in_flight_ends_here(true, in_flight, end_that_was_missed(in_flight));
	return 0;
}
#endif

/* Another packet has the address now: TCP has consumed the previous packet, or merged it into another. */
static __always_inline void was_missed(struct sk_buff *skb, struct in_flight_packet *in_flight)
{
	if (may_be_merged(in_flight) && set_aside(skb, in_flight))
		; /* TCP has yet to process it */
	else
		in_flight_ended(in_flight);
	in_flight_forget(skb);
}

#endif
