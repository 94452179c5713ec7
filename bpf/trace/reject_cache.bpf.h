/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets that the filters refused: most of a busy host's. Where such a packet comes by again, one look at an
 * array says so; neither are its headers read, nor is it looked for among those that are followed.
 *
 * A packet is the same one, as far as filters go, if skb and flow hash are the same: the hash is the sending
 * socket's own, or the card's. From a device's queue to the receipt at the other end nothing rewrites a packet; what
 * comes to a queue, or from a card, is looked at again. But what one socket sends by one device, under one
 * flow hash, are packets of one connection: of these one is looked at.
 */
#ifndef CGNET_TRACE_REJECT_CACHE_BPF_H
#define CGNET_TRACE_REJECT_CACHE_BPF_H

#include "base/flow.bpf.h"

#define MAX_REFUSED 4096 /* places; a later one takes the place of an earlier one */

struct refused {
	u64 skb;   /* its address: no trip of it is there as long as this says so. 0: nobody's */
	u32 mark;  /* 0: it is looked at at each stage */
	u32 taken; /* 1: its receiver has it, and may rewrite it: it is looked at again */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_REFUSED);
	__type(key, u32);
	__type(value, struct refused);
} refused SEC(".maps");

/*
 * Of an address. To the verifier a part of a typed pointer is a number, and the whole one can't be computed with; raw
 * programs, those at functions among them, have the part through memory.
 */
static __always_inline u32 mixed(const void *address)
{
	u32 half = 0;

#if TYPED
	asm volatile("%0 = %1" : "=w"(half) : "w"((u32)(u64)address));
#else
	bpf_probe_read_kernel(&half, sizeof(half), &address);
#endif
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
static __always_inline bool is_rejected(struct sk_buff *skb)
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

/* It is gone: the address may be another packet's from now on, which isn't followed until it is looked at. */
static __always_inline void refused_is_gone(struct sk_buff *skb)
{
	struct refused *place = refused_place(skb);

	if (place && place->skb == (u64)skb)
		place->taken = 1;
}

/* A trip begins at the address. */
static __always_inline void reject_cache_clear(struct sk_buff *skb)
{
	struct refused *place = refused_place(skb);

	if (place && place->skb == (u64)skb)
		place->skb = 0;
}

/* -- whose packets the filters refuse */

/*
 * A socket and a flow hash, which is a random number that a socket gets anew for each connection. Two that write here
 * at once leave what fits no packet.
 */
struct refused_sender {
	u64 sk;
	u64 mark; /* of the flow hash and the device */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_REFUSED);
	__type(key, u32);
	__type(value, struct refused_sender);
} refused_senders SEC(".maps");

static __always_inline struct refused_sender *sender_place(struct sock *sk, u32 hash)
{
	u32 place = (mixed(sk) ^ hash) % MAX_REFUSED;

	return bpf_map_lookup_elem(&refused_senders, &place);
}

static __always_inline u64 sender_mark(const bool typed, struct sk_buff *skb, u32 hash)
{
	return (u64)hash << 32 | mixed(READ(skb, dev));
}

/* Whether packets of its socket, and of its connection, were refused at this device. */
static __always_inline bool is_of_refused_sender(const bool typed, struct sk_buff *skb)
{
	struct sock *sk = READ(skb, sk);
	u32 hash = READ(skb, hash);
	struct refused_sender *place;

	if (!sk || !hash)
		return false;
	place = sender_place(sk, hash);
	return place && place->sk == (u64)sk && place->mark == sender_mark(typed, skb, hash);
}

static __always_inline void refuse_sender(const bool typed, struct sk_buff *skb)
{
	struct sock *sk = READ(skb, sk);
	u32 hash = READ(skb, hash);
	struct refused_sender *place;

	if (!sk || !hash)
		return;
	place = sender_place(sk, hash);
	if (!place)
		return;
	place->sk = (u64)sk;
	place->mark = sender_mark(typed, skb, hash);
}

#endif
