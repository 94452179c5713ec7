/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connections whose both ends are sockets of this host: reported once, when the second end is established.
 *
 * A handshake establishes the end that connects first, and the other one with the segment that it sends then.
 * So the first end waits in a table until the second one comes. Where the other end is elsewhere nobody
 * comes, and the entry stays until the table has no room: it is one of the least recently used.
 */
#ifndef CGNET_PEER_MAKING_BPF_H
#define CGNET_PEER_MAKING_BPF_H

#include "base/transport.bpf.h"
#include "peer/identity.bpf.h"

CROSSES_TO_USER_SPACE(pair_event);
CONFIG(peer_config);

struct made_end {
	struct identity identity;
	struct owner owner;
	u32 wanted; /* 1: its owner passes the filters */
	u32 pad;
};

/* First ends, by both numbers of the identity, the lower one first. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CGNET_MAKING);
	__type(key, u64);
	__type(value, struct made_end);
} ends_being_made SEC(".maps");

/* Ends that began to wait in the present second: with more than the table has, one that may still be met is evicted. */
struct ends_waiting {
	u64 second;
	s64 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct ends_waiting);
} ends_waiting SEC(".maps");

static __always_inline void count_waiting(u64 now, s64 more)
{
	struct ends_waiting *waiting = bpf_map_lookup_elem(&ends_waiting, &(u32){0});
	u64 second = now >> 30;

	if (!waiting)
		return;
	if (waiting->second != second) {
		waiting->second = second;
		waiting->number = 0;
	}
	if (more > 0 && waiting->number >= CGNET_MAKING)
		count_lost(LOST_PEERS);
	__sync_fetch_and_add(&waiting->number, more);
}

static __always_inline u64 key_of(const struct identity *identity)
{
	u64 one = identity->local, other = identity->remote;

	return one < other ? one | other << 32 : other | one << 32;
}

static __always_inline bool is_other_end(const struct made_end *end,
					 const struct identity *identity)
{
	return end->identity.local == identity->remote && end->identity.remote == identity->local;
}

/*
 * Report both ends. The table reuses an entry's memory at once: what was copied is good if the entry is still
 * that of the connection afterwards.
 */
static __always_inline void ends_meet(u64 now, const struct made_end *first,
				      const struct identity *identity, const struct owner *owner)
{
	struct pair_event *event = reserve(sizeof(*event), RECORD_PAIR, now, LOST_PEERS);

	if (!event)
		return;
	event->identity = *identity;
	event->local = *owner;
	event->remote = first->owner;
	barrier();
	if (!is_other_end(first, identity)) {
		no_identity(&event->identity);
		count_lost(LOST_PEERS);
	}
	submit(event);
}

static __always_inline void end_waits(u64 now, u64 key, const struct identity *identity,
				      const struct owner *owner, u32 wanted)
{
	struct made_end mine = {.identity = *identity, .owner = *owner, .wanted = wanted};

	if (!bpf_map_update_elem(&ends_being_made, &key, &mine, BPF_NOEXIST))
		count_waiting(now, 1);
}

/* An end is established. Its `wanted` is whether its rows pass the filters: a pair nobody shows isn't reported. */
static __always_inline void end_is_made(u64 now, const struct identity *identity,
					const struct owner *owner, u32 wanted)
{
	struct made_end *first;
	u64 key;

	if (!peer_config.follow || (!identity->local && !identity->remote))
		return;
	key = key_of(identity);
	first = bpf_map_lookup_elem(&ends_being_made, &key);
	if (!first) {
		end_waits(now, key, identity, owner, wanted);
		return;
	}
	if (!is_other_end(first, identity))
		count_lost(
			LOST_PEERS); /* a third one has the same numbers: nobody knows which are the two */
	else if (wanted || first->wanted)
		ends_meet(now, first, identity, owner);
	bpf_map_delete_elem(&ends_being_made, &key);
	count_waiting(now, -1);
}

/* Report the identity of an end, and its new owner; NULL: it is over. */
static __always_inline void tell_end(u64 now, const struct identity *identity,
				     const struct owner *owner)
{
	struct pair_event *event = reserve(sizeof(*event), RECORD_PAIR, now, LOST_PEERS);

	if (!event)
		return;
	event->identity = *identity;
	__builtin_memset(&event->local, 0, sizeof(event->local));
	if (owner)
		event->local = *owner;
	__builtin_memset(&event->remote, 0, sizeof(event->remote));
	submit(event);
}

/* A process reads from an accepted connection first that isn't its listener's. */
static __always_inline void end_is_read(u64 now, const struct identity *identity,
					const struct owner *owner)
{
	if (peer_config.follow && (identity->local || identity->remote))
		tell_end(now, identity, owner);
}

/* A connection ends here. If no other end has come, none will. */
static __always_inline void end_is_over(u64 now, const struct identity *identity)
{
	u64 key = key_of(identity);

	if (!key)
		return;
	if (!bpf_map_delete_elem(&ends_being_made, &key))
		count_waiting(now, -1);
	else
		tell_end(now, identity, NULL);
}

#endif
