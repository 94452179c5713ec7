/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a drop means, which ones are wanted, and how they are told. */
#ifndef CGNET_DROPPED_BPF_H
#define CGNET_DROPPED_BPF_H

#include "location.bpf.h"
#include "packet.bpf.h"
#include "whose_packet.bpf.h"
#include "count.bpf.h"
#include "time_waits.bpf.h"

CROSSES_TO_USER_SPACE(drop_event);

/* What a reason means, by its number: user space knows the names. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u32);
} drop_classes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u32);
} selected_reasons SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, char[CGNET_DEV_LEN]);
	__type(value, u32);
} selected_devices SEC(".maps");

/* Stacks of what is counted, by their ids. */
struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 16384);
	__uint(key_size, sizeof(u32));
	__uint(value_size, CGNET_FRAMES * sizeof(u64));
} stacks SEC(".maps");

/* Drops that were no fault, and weren't shown; of all owners. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} benign_drops SEC(".maps");

/* -- what it means */

static __always_inline bool is_benign_code(u64 location)
{
	for (u32 i = 0; i < CGNET_BENIGN; i++)
		if (is_within(location, &cfg.benign_code[i]))
			return true;
	return false;
}

/* Where TCP drops what it has no socket for, or one in TIME_WAIT. */
static __always_inline bool is_receiving_code(u64 location)
{
	for (u32 i = 0; i < CGNET_RECEIVING; i++)
		if (is_within(location, &cfg.receiving_code[i]))
			return true;
	return false;
}

static __always_inline bool has_no_reason(const struct drop *drop)
{
	return cfg.drop_arguments > 2 && drop->reason == cfg.not_specified;
}

/* Where no drop has a reason, the function tells: a firewall's is none of these. */
static __always_inline bool may_be_of_time_wait(const struct drop *drop)
{
	return has_no_reason(drop) || (cfg.drop_arguments < 3 && is_receiving_code(drop->location));
}

#define TCP_FLAG_ACK_ALONE 0x10

/*
 * Who was told the peer's end discards each segment without data, after it took in what that acknowledges: the end of
 * tcp_rcv_state_process(). It is a drop since kernels have reasons; those before only free it.
 */
static __always_inline bool is_late_ack(const struct drop *drop)
{
	u32 late = 1 << TCP_CLOSE_WAIT | 1 << TCP_LAST_ACK | 1 << TCP_CLOSING;

	return drop->tcp_flags == TCP_FLAG_ACK_ALONE && !drop->payload &&
	       (late >> (drop->tcp_state & 31) & 1) && has_no_reason(drop);
}

/*
 * An acknowledgement that another CPU's packet overtook has nothing to tell. Its time stamp is an old one then, a reason
 * of its own since Linux kernel commit 124c4c32e9f3 "tcp: add TCP_RFC7323_PAWS_ACK drop reason" (in v6.14). Or that
 * packet was the last one, and its socket was found while it was there.
 */
static __always_inline bool is_overtaken_ack(const struct drop *drop)
{
	bool ended = drop->reason == cfg.close_reason && drop->tcp_state == TCP_CLOSE;

	return (ended || drop->reason == cfg.paws_reason) &&
	       drop->tcp_flags == TCP_FLAG_ACK_ALONE && !drop->payload;
}

/* Ordinary closes drop packets, too: what comes to TIME_WAIT, or to a listener after an abort. */
static __always_inline u32 class_of(const struct drop *drop)
{
	u32 *class;

	if (is_benign_code(drop->location) || is_late_ack(drop) || is_overtaken_ack(drop))
		return DROP_BENIGN;
	if (drop->tcp_state == TCP_TIME_WAIT && may_be_of_time_wait(drop))
		return DROP_BENIGN;
	if (drop->tcp_state == TCP_LISTEN && drop->reason == cfg.flags_reason)
		return DROP_BENIGN;
	class = bpf_map_lookup_elem(&drop_classes, &drop->reason);
	return class ? *class : DROP_UNKNOWN;
}

static __always_inline void count_benign(void)
{
	u64 *count = bpf_map_lookup_elem(&benign_drops, &(u32){0});

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline bool drop_passes(const struct drop *drop)
{
	if (cfg.by_class && !(cfg.by_class >> (drop->drop_class & 31) & 1))
		return false;
	if (cfg.by_state && !(cfg.by_state >> (drop->tcp_state & 31) & 1))
		return false;
	if (cfg.by_dev && !hash_passes(&selected_devices, drop->dev, cfg.by_dev))
		return false;
	return true;
}

/* -- rows and counts */

static __always_inline void count_drop(void *ctx, const struct owner *owner,
				       const struct packet *packet, const struct drop *drop)
{
	struct count_key key = {};

	count_by_owner(&key, owner);
	count_by_flow(&key, &packet->flow);
	if (cfg.count_by & BY_REASON)
		key.result = drop->reason;
	if (cfg.count_by & BY_LOCATION)
		key.location = drop->location;
	if (cfg.count_by & BY_STACK)
		key.location = (u32)bpf_get_stackid(ctx, &stacks, BPF_F_FAST_STACK_CMP);
	count(&key);
}

static __always_inline void emit_drop(void *ctx, const struct owner *owner,
				      const struct packet *packet, const struct drop *drop)
{
	struct drop_event *event;
	long size = 0;

	event = reserve(sizeof(*event), RECORD_DROP, bpf_ktime_get_ns(), LOST_RING);
	if (!event)
		return;
	event->owner = *owner;
	event->flow = packet->flow;
	event->drop = *drop;
	if (cfg.stacks)
		size = bpf_get_stack(ctx, event->stack, sizeof(event->stack), 0);
	event->drop.frames = size > 0 ? size / sizeof(u64) : 0;
	submit(event);
}

static __always_inline void fill_drop(struct drop *drop, const struct packet *packet,
				      const struct place *place)
{
	drop->len = packet->len;
	drop->payload = packet->payload;
	drop->seq = packet->seq;
	drop->tcp_flags = packet->flags;
	drop->ifindex = place->ifindex;
	drop->tcp_state = place->tcp_state;
	drop->sent = place->sent;
	if (!sockets_are_told() && !drop->tcp_state && is_receiving_code(drop->location) &&
	    may_be_of_time_wait(drop) &&
	    came_to_time_wait(&packet->flow, place->netns, packet->flags))
		drop->tcp_state = TCP_TIME_WAIT;
	__builtin_memcpy(drop->dev, place->dev, sizeof(drop->dev));
	drop->drop_class = class_of(drop);
}

/* `known`: who holds the socket that the packet was for, if that isn't the place's. */
static __always_inline void tell_drop(const bool typed, void *ctx, struct packet *packet,
				      struct drop *drop, const struct place *place,
				      const struct holder *known)
{
	struct holder holder = {};

	packet->flow.netns = place->netns;
	fill_drop(drop, packet, place);
	if (!drop_passes(drop) || !packet_passes(place, &packet->flow))
		return;
	if (drop->drop_class == DROP_BENIGN && !cfg.benign) {
		count_benign();
		return;
	}
	if (known)
		holder = *known;
	else
		drop->role = whose_packet(typed, place, &packet->flow, &holder);
	if (!holder.wanted)
		return;
	if (cfg.count)
		count_drop(ctx, &holder.owner, packet, drop);
	else
		emit_drop(ctx, &holder.owner, packet, drop);
}

#endif
