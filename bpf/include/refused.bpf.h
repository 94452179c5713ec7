/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets that the filters refused: most of a busy host's. Where such a packet comes by again, one look at an
 * array says so; neither are its headers read, nor is it looked for among those that are followed.
 *
 * A packet is the same one, as far as filters go, if skb and flow hash are the same: the hash is the sending
 * socket's own, or the card's. From a device's queue to the receipt at the other end nothing rewrites a packet; what
 * comes to a queue, or from a card, is always looked at.
 */
#ifndef CGNET_REFUSED_BPF_H
#define CGNET_REFUSED_BPF_H

#include "flow.bpf.h"

#define MOST_REFUSED 4096 /* places; a later one takes the place of an earlier one */

struct refused {
	u64 skb;   /* its address: no trip of it is there as long as this says so. 0: nobody's */
	u32 mark;  /* 0: it is looked at at each stage */
	u32 taken; /* 1: its receiver has it, and may rewrite it: it is looked at again */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MOST_REFUSED);
	__type(key, u32);
	__type(value, struct refused);
} refused SEC(".maps");

/* Of an address; to the verifier half of a typed pointer is a number, a whole one can't be shifted. */
static __always_inline u32 mixed(const void *address)
{
	u32 half;

	asm volatile("%0 = %1" : "=w"(half) : "w"((u32)(u64)address));
	return (half >> 6) * 2654435761U; /* Knuth's: 2^32 by the golden ratio */
}

static __always_inline struct refused *refused_place(struct sk_buff *skb)
{
	u32 place = mixed(skb) >> 20;

	return bpf_map_lookup_elem(&refused, &place);
}

/* Filters of namespaces look at the device's: there the device is part of the mark. */
static __always_inline u32 mark_of(const bool typed, struct sk_buff *skb)
{
	u32 hash = READ(skb, hash);

	if (hash && cfg.by_netns)
		hash ^= mixed(READ(skb, dev));
	return hash;
}

/* Whether it was refused when it was looked at last: then it isn't followed. */
static __always_inline bool is_refused(struct sk_buff *skb)
{
	struct refused *place = refused_place(skb);

	return place && place->skb == (u64)skb;
}

/* Whether it would be refused again. */
static __always_inline bool stays_refused(const bool typed, struct sk_buff *skb, bool is_receipt)
{
	struct refused *place = refused_place(skb);

	if (!place || place->skb != (u64)skb || !place->mark || place->taken ||
	    place->mark != mark_of(typed, skb))
		return false;
	if (is_receipt)
		place->taken = 1;
	return true;
}

static __always_inline void refuse(const bool typed, struct sk_buff *skb, bool is_receipt)
{
	struct refused *place = refused_place(skb);

	if (!place)
		return;
	place->mark = mark_of(typed, skb);
	place->taken = is_receipt;
	place->skb = (u64)skb;
}

/* The address may be another packet's from now on. */
static __always_inline void unrefuse(struct sk_buff *skb)
{
	struct refused *place = refused_place(skb);

	if (place && place->skb == (u64)skb)
		place->skb = 0;
}

#endif
