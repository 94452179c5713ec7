/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connections whose both ends are sockets of this host: reported once, when the second end is established.
 *
 * A handshake establishes the end that connects first, and the other one with the segment that it sends then.
 * So the first end waits in a table until the second one comes. Where the other end is elsewhere nobody
 * comes, and the entry stays until its bucket has no room and it has waited longest.
 */
#ifndef CGNET_PEER_MAKING_BPF_H
#define CGNET_PEER_MAKING_BPF_H

#include "base/transport.bpf.h"
#include "peer/identity.bpf.h"

CROSSES_TO_USER_SPACE(pair_event);
CONFIG(peer_config);

#define MAKING_WAYS 8 /* of a bucket */
#define MAKING_BUCKETS (CGNET_MAKING / MAKING_WAYS)
#define GOLDEN_RATIO 0x9e3779b97f4a7c15 /* times 2^64 */
#define MAKING_SHIFT 20			/* of `since`: some milliseconds */
#define MAY_BE_MET 256 /* ticks: longer than a handshake whose last segment is sent again */

struct made_end {
	struct owner owner;
	u32 wanted; /* 1: its owner passes the filters */
	u32 pad;
	u64 check; /* of all of it, with its identity: two CPUs may write the same entry */
};

/* First ends. The identities come first: most look-ups need only them. */
struct making_bucket {
	u64 identities[MAKING_WAYS]; /* local number in the low half; 0: none */
	u32 since[MAKING_WAYS];
	struct made_end ends[MAKING_WAYS];
};

/* Set-associative table of first ends, by both numbers of the identity. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAKING_BUCKETS);
	__type(key, u32);
	__type(value, struct making_bucket);
} ends_being_made SEC(".maps");

static __always_inline u64 number_of(const struct identity *identity)
{
	return identity->local | (u64)identity->remote << 32;
}

static __always_inline u64 seen_from_there(u64 identity)
{
	return identity >> 32 | identity << 32;
}

/* Both ends have the same bucket. */
static __always_inline struct making_bucket *making_bucket(u64 identity)
{
	u64 other = seen_from_there(identity);
	u32 place = ((identity < other ? identity : other) * GOLDEN_RATIO) >> 53;

	return bpf_map_lookup_elem(&ends_being_made, &place);
}

static __always_inline u64 check_of(u64 identity, const struct made_end *end)
{
	const u64 *words = (const u64 *)&end->owner;
	u64 check = (identity ^ end->wanted) * GOLDEN_RATIO;

	for (u32 i = 0; i < sizeof(end->owner) / sizeof(u64); i++)
		check = (check ^ check >> 29 ^ words[i]) * GOLDEN_RATIO;
	return check;
}

/* Way of an identity in its bucket; MAKING_WAYS: none. */
static __always_inline u32 way_of(const struct making_bucket *bucket, u64 identity)
{
	u32 found = MAKING_WAYS;

	for (u32 i = 0; i < MAKING_WAYS; i++)
		if (bucket->identities[i] == identity)
			found = i;
	return found;
}

/* Way that is empty, or else the one that has waited longest. */
static __always_inline u32 way_for(const struct making_bucket *bucket, u32 now)
{
	u32 best = 0, longest = 0;

	for (u32 i = 0; i < MAKING_WAYS; i++) {
		u32 waits = bucket->identities[i] ? now - bucket->since[i] : ~0U;

		if (waits >= longest) {
			longest = waits;
			best = i;
		}
	}
	if (longest < MAY_BE_MET)
		count_lost(LOST_PEERS);
	return best;
}

/* Report both ends. */
static __always_inline void ends_meet(u64 now, const struct made_end *first,
				      const struct identity *identity, const struct owner *owner)
{
	struct pair_event *event = reserve(sizeof(*event), RECORD_PAIR, now, LOST_PEERS);

	if (!event)
		return;
	event->identity = *identity;
	event->local = *owner;
	event->remote = first->owner;
	submit(event);
}

static __always_inline void end_waits(u64 now, struct making_bucket *bucket, u64 identity,
				      const struct owner *owner, u32 wanted)
{
	struct made_end mine = {.owner = *owner, .wanted = wanted};
	u32 way = way_for(bucket, now >> MAKING_SHIFT);

	mine.check = check_of(identity, &mine);
	barrier_var(way);
	way &= MAKING_WAYS - 1;
	bucket->identities[way] = 0;
	barrier();
	bucket->ends[way] = mine;
	bucket->since[way] = now >> MAKING_SHIFT;
	barrier();
	bucket->identities[way] = identity;
}

/* Forget the end that waits under an identity; return whether there was one. */
static __always_inline bool waits_no_longer(struct making_bucket *bucket, u64 identity)
{
	u32 way = way_of(bucket, identity);

	if (way >= MAKING_WAYS)
		return false;
	barrier_var(way);
	way &= MAKING_WAYS - 1;
	bucket->identities[way] = 0;
	return true;
}

/* An end is established. Its `wanted` is whether its rows pass the filters: a pair nobody shows isn't reported. */
static __always_inline void end_is_made(u64 now, const struct identity *identity,
					const struct owner *owner, u32 wanted)
{
	u64 mine = number_of(identity), other = seen_from_there(mine);
	struct making_bucket *bucket;
	struct made_end first;
	u32 way;

	if (!peer_config.follow || !mine)
		return;
	bucket = making_bucket(mine);
	if (!bucket)
		return;
	way = way_of(bucket, other);
	if (way >= MAKING_WAYS) {
		if (waits_no_longer(bucket, mine))
			count_lost(
				LOST_PEERS); /* a third one has the same numbers: nobody knows which are the two */
		else
			end_waits(now, bucket, mine, owner, wanted);
		return;
	}
	barrier_var(way);
	way &= MAKING_WAYS - 1;
	first = bucket->ends[way];
	bucket->identities[way] = 0;
	if (first.check != check_of(other, &first))
		count_lost(LOST_PEERS);
	else if (wanted || first.wanted)
		ends_meet(now, &first, identity, owner);
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
	u64 mine = number_of(identity);
	struct making_bucket *bucket = making_bucket(mine);

	if (bucket && mine && !waits_no_longer(bucket, mine))
		tell_end(now, identity, NULL);
}

#endif
