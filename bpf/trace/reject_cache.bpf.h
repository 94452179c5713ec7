/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Direct-mapped cache of packets that the filters refused: most packets of a busy host. One array lookup
 * recognizes such a packet at later stages, without reading its headers or looking it up among the packets in
 * flight.
 *
 * To filters, a packet is the same if its skb and flow hash are the same: the hash is set by the sending
 * socket or the network card. From a device's queue to receipt at the other end nothing rewrites a packet; a
 * packet that enters a queue, or comes from a card, is checked again. But packets that one socket sends
 * through one device under one flow hash belong to one connection: only one of them is checked.
 */
#ifndef CGNET_TRACE_REJECT_CACHE_BPF_H
#define CGNET_TRACE_REJECT_CACHE_BPF_H

#include "trace/private.bpf.h"
#include "base/flow.bpf.h"
#include "abi/filter.h"

CONFIG(filter_config);

#define MAX_REFUSED 4096 /* slots; a later packet replaces an earlier one */

struct refused {
	u64 skb;   /* address: the packet is not in flight while this is set. 0: free */
	u32 mark;  /* 0: check the packet at each stage */
	u32 taken; /* 1: the receiver has the packet, and may rewrite it: check it again */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_REFUSED);
	__type(key, u32);
	__type(value, struct refused);
} refused SEC(".maps");

/*
 * Hash of an address. The verifier treats part of a typed pointer as a number, but allows no arithmetic on
 * the whole; raw programs, including those at functions, get the part through memory.
 */
static __always_inline u32 mixed(const void *address)
{
	u32 half = 0;

#if TYPED
	asm volatile("%0 = %1" : "=w"(half) : "w"((u32)(u64)address));
#else
	bpf_probe_read_kernel(&half, sizeof(half), &address);
#endif
	return (half >> 6) * 2654435761U; /* Knuth's hash: 2^32 / golden ratio */
}

static __always_inline struct refused *refused_place(struct sk_buff *skb)
{
	u32 place = mixed(skb) >> 20;

	return bpf_map_lookup_elem(&refused, &place);
}

/* Namespace filters check the namespace of the device: the mark then includes the device. */
static __always_inline u32 mark_of(struct sk_buff *skb)
{
	u32 hash = READ(skb, hash);

	if (hash && filter_config.by_netns)
		hash ^= mixed(READ(skb, dev));
	return hash;
}

/* Whether the last check refused the packet: then it is not in flight. */
static __always_inline bool is_rejected(struct sk_buff *skb)
{
	struct refused *place = refused_place(skb);

	return place && place->skb == (u64)skb;
}

/* Whether the filters would refuse the packet again. */
static __always_inline bool stays_refused(struct sk_buff *skb, bool is_receipt)
{
	struct refused *place = refused_place(skb);

	if (!place || place->skb != (u64)skb || !place->mark || place->taken ||
	    place->mark != mark_of(skb))
		return false;
	if (is_receipt)
		place->taken = 1;
	return true;
}

static __always_inline void refuse(struct sk_buff *skb, bool is_receipt)
{
	struct refused *place = refused_place(skb);

	if (!place)
		return;
	place->mark = mark_of(skb);
	place->taken = is_receipt;
	place->skb = (u64)skb;
}

/* The packet is freed: the next packet at its address is not tracked until it is checked. */
static __always_inline void refused_is_gone(struct sk_buff *skb)
{
	struct refused *place = refused_place(skb);

	if (place && place->skb == (u64)skb)
		place->taken = 1;
}

/* A packet at this address is tracked now. */
static __always_inline void reject_cache_clear(struct sk_buff *skb)
{
	struct refused *place = refused_place(skb);

	if (place && place->skb == (u64)skb)
		place->skb = 0;
}

/* -- senders whose packets the filters refuse */

/*
 * Socket and flow hash, a random number that a socket draws anew for each connection. Two concurrent writers
 * leave an entry that matches no packet.
 */
struct refused_sender {
	u64 sk;
	u64 mark; /* combines flow hash and device */
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

static __always_inline u64 sender_mark(struct sk_buff *skb, u32 hash)
{
	return (u64)hash << 32 | mixed(READ(skb, dev));
}

/* Whether packets of the skb's socket and connection were refused at this device. */
static __always_inline bool is_of_refused_sender(struct sk_buff *skb)
{
	struct sock *sk = READ(skb, sk);
	u32 hash = READ(skb, hash);
	struct refused_sender *place;

	if (!sk || !hash)
		return false;
	place = sender_place(sk, hash);
	return place && place->sk == (u64)sk && place->mark == sender_mark(skb, hash);
}

static __always_inline void refuse_sender(struct sk_buff *skb)
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
	place->mark = sender_mark(skb, hash);
}

#endif
