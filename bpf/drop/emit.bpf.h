/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Classify drops, apply the filters, and report or count them. */
#ifndef CGNET_DROP_EMIT_BPF_H
#define CGNET_DROP_EMIT_BPF_H

#include "base/location.bpf.h"
#include "base/packet.bpf.h"
#include "owner/packet_owner.bpf.h"
#include "count/count.bpf.h"
#include "drop/class.bpf.h"
#include "drop/last_closed.bpf.h"
#include "drop/syn_senders.bpf.h"
#include "peer/packet_end.bpf.h"
#include "sums/hooks.bpf.h"

CROSSES_TO_USER_SPACE(drop_event);
CONFIG(count_config);
CONFIG(drop_config);

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

/* Stacks of counted drops, by id. */
struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 16384);
	__uint(key_size, sizeof(u32));
	__uint(value_size, CGNET_FRAMES * sizeof(u64));
} stacks SEC(".maps");

/* Number of benign drops that were not shown, of all owners. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} benign_drops SEC(".maps");

static __always_inline void count_benign(void)
{
	u64 *count = bpf_map_lookup_elem(&benign_drops, &(u32){0});

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline bool drop_passes(const struct drop *drop)
{
	if (drop_config.by_class && !(drop_config.by_class >> (drop->drop_class & 31) & 1))
		return false;
	if (drop_config.by_state && !(drop_config.by_state >> (drop->tcp_state & 31) & 1))
		return false;
	if (drop_config.by_dev && !hash_passes(&selected_devices, drop->dev, drop_config.by_dev))
		return false;
	return true;
}

/* -- records and counts */

static __always_inline void count_drop(void *ctx, const struct owner *owner,
				       const struct packet *packet, const struct drop *drop)
{
	struct count_key key = {};

	count_by_owner(&key, owner);
	count_by_flow(&key, &packet->flow);
	if (count_config.by & BY_REASON)
		key.result = drop->reason;
	if (count_config.by & BY_LOCATION)
		key.location = drop->location;
	if (count_config.by & BY_STACK)
		key.location = (u32)bpf_get_stackid(ctx, &stacks, BPF_F_FAST_STACK_CMP);
	count(&key);
}

static __always_inline void emit_drop(void *ctx, const struct owner *owner,
				      const struct packet *packet, const struct place *place,
				      const struct drop *drop)
{
	struct drop_event *event;
	long size = 0;

	event = reserve_in(RING_DROPS, sizeof(*event), RECORD_DROP, bpf_ktime_get_ns(), LOST_RING);
	if (!event)
		return;
	event->owner = *owner;
	event->flow = packet->flow;
	event->drop = *drop;
	__builtin_memset(&event->end, 0, sizeof(event->end));
	if (place->sk && place->tcp_state != TCP_LISTEN)
		end_of_packet(place->sk, place->tcp_state, place->sent, &event->end);
	if (drop_config.stacks)
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
	    may_be_of_time_wait(drop) && came_to_time_wait(drop, packet, place->netns))
		drop->tcp_state = TCP_TIME_WAIT;
	__builtin_memcpy(drop->dev, place->dev, sizeof(drop->dev));
	drop->drop_class = class_of(drop);
	FORGET_VALUES(drop);
}

/* -- owners of packets without a socket */

static __always_inline void key_of_destination(u32 netns, const struct flow *flow,
					       struct listener_key *key)
{
	key->netns = netns;
	key->port = flow->dport;
	if (flow->family == 4) {
		key->address[10] = key->address[11] = 0xff;
		__builtin_memcpy(&key->address[12], flow->daddr, 4);
	} else {
		__builtin_memcpy(key->address, flow->daddr, sizeof(key->address));
	}
}

/* Owner of the listener at a packet's destination, or NULL. */
static __always_inline struct holder *listener_of_flow(const struct flow *flow)
{
	struct listener_key key = {};
	struct holder *found;

	key_of_destination(flow->netns, flow, &key);
	found = listener_at(&key);
	return found && found->owner.source ? found : NULL;
}

/*
 * A connection in TIME_WAIT has no owner, but its listener does; a SYN has a sender that waits for an answer,
 * and a socket that its segment has destroyed had an owner until then.
 */
static __always_inline bool holder_without_entry(struct drop *drop, const struct place *place,
						 const struct flow *flow, struct holder *holder)
{
	struct ledger_entry *entry;
	struct holder *listener;
	struct closed *closed;

	if (drop->tcp_state == TCP_TIME_WAIT) {
		listener = listener_of_flow(flow);
		if (!listener)
			return false;
		*holder = *listener;
		holder->owner.source = OWNER_INHERITED;
		drop->role = ROLE_SERVER;
		return true;
	}
	if (!TYPED && drop->tcp_state == TCP_CLOSE) {
		closed = closed_as(place->sk);
		if (!closed)
			return false;
		*holder = closed->holder;
		drop->role = closed->role;
		return true;
	}
	if (drop->tcp_flags != TCP_FLAG_SYN_ALONE || drop->tcp_state)
		return false;
	entry = sender_of_syn(flow);
	if (!entry || !entry->whole)
		return false;
	*holder = *holder_of(entry);
	drop->role = entry->role;
	return holder->owner.source != OWNER_UNKNOWN;
}

/*
 * A SYN on its way is its sender's, also in the first second of a container, when neither its namespace nor its
 * addresses are known, and the guess is unknown or the destination.
 */
static __always_inline void find_new_sender(struct drop *drop, const struct flow *flow,
					    struct holder *holder)
{
	u8 source = holder->owner.source;
	const struct holder *sender;
	struct ledger_entry *entry;

	if (drop->tcp_flags != TCP_FLAG_SYN_ALONE || drop->tcp_state ||
	    (source != OWNER_DEVICE && source != OWNER_ADDRESS && source != OWNER_UNKNOWN))
		return;
	entry = far_sender_of_syn(flow);
	if (!entry || !entry->whole)
		return;
	sender = holder_of(entry);
	if (sender->owner.cgroup_id == holder->owner.cgroup_id ||
	    !bpf_map_lookup_elem(&container_cgroups, &sender->owner.cgroup_id))
		return;
	*holder = *sender;
	drop->role = entry->role;
}

/* `known`: owner of the socket that the packet was for, if that is not the socket of `place`. */
static __always_inline void tell_drop(void *ctx, struct packet *packet, struct drop *drop,
				      const struct place *place, const struct holder *known)
{
	struct holder holder = {};

	packet->flow.netns = place->netns;
	fill_drop(drop, packet, place);
	if (!drop_passes(drop) ||
	    (!is_of_everybody(SIGNAL_DROP) && !packet_passes(place, &packet->flow)))
		return;
	if (drop->drop_class == DROP_BENIGN && !drop_config.benign) {
		count_benign();
		return;
	}
	if (known) {
		holder = *known;
	} else if (!holder_without_entry(drop, place, &packet->flow, &holder)) {
		drop->role = whose_packet(place, &packet->flow, &holder);
		find_new_sender(drop, &packet->flow, &holder);
	}
	FORGET_VALUES(&holder);
	if (is_of_everybody(SIGNAL_DROP))
		holder.owner.undecided = UNDECIDED_NOT;
	else if (!holder.wanted)
		return;
	sum_drop(&holder.owner, drop);
	if (!tells(SIGNAL_DROP))
		return;
	if (counts_instead())
		count_drop(ctx, &holder.owner, packet, drop);
	else
		emit_drop(ctx, &holder.owner, packet, place, drop);
}

#endif
