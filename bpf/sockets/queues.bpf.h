/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How full the accept queues of listeners have been. A queue grows by one when a handshake ends, just before its
 * connection becomes ESTABLISHED: all listeners at the connection's port are looked at then, for it doesn't tell
 * which one it comes from. It costs nothing unless a run watches, and nothing for a packet.
 */
#ifndef CGNET_SOCKETS_QUEUES_BPF_H
#define CGNET_SOCKETS_QUEUES_BPF_H

#include "base/flow.bpf.h"
#include "sockets/query.bpf.h"

#define LISTENERS_AT_PORT 64 /* further ones are seen by listings alone */

/* Listeners at a port are numbered from 0, without holes. */
struct watched_key {
	struct port_key port;
	u32 number;
};

struct watched_listener {
	u64 address; /* read with fault handling: it may be gone */
	u32 high;
	u32 count; /* of the listeners at the port; only in the first one's entry */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct watched_key);
	__type(value, struct watched_listener);
} watched_listeners SEC(".maps");

static __always_inline u32 queue_of(struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_ack_backlog);
}

/* skc_num is already 0 when a socket that was not bound gets to TCP_CLOSE: see flow_of_sock(). */
static __always_inline void watched_key_of(struct sock *sk, struct watched_key *key)
{
	struct inet_sock *inet = (struct inet_sock *)sk;

	key->port.netns = netns_of(false, sk);
	key->port.port = bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
	key->number = 0;
}

static __always_inline bool still_listens(const struct watched_listener *watched, u32 port)
{
	struct sock *sk = (struct sock *)watched->address;

	return BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_LISTEN &&
	       BPF_CORE_READ(sk, __sk_common.skc_num) == port;
}

/* Another CPU may store a lower number at the same time: look again. */
static __always_inline void raise_high(struct watched_listener *watched, u32 queue)
{
	volatile u32 *high = &watched->high;

	if (*high < queue)
		*high = queue;
	if (*high < queue)
		*high = queue;
}

/* Appends a listener to those at its port. */
static __always_inline void add_watched(struct watched_key *key, struct watched_listener *mine)
{
	u32 number = key->number;
	struct watched_listener *first;

	mine->count = 1;
	if (bpf_map_update_elem(&watched_listeners, key, mine, BPF_ANY)) {
		count_no_room(NO_ROOM_QUEUES);
		return;
	}
	key->number = 0;
	first = bpf_map_lookup_elem(&watched_listeners, key);
	if (first)
		first->count = number + 1;
}

/* Returns the most that its queue has held. `begins`: it didn't listen before. */
static __noinline int watch_listener(struct sock *sk, bool begins)
{
	struct watched_listener mine = {.address = (u64)sk, .high = queue_of(sk)}, *known;
	struct watched_key key;

	watched_key_of(sk, &key);
	if (!key.port.port)
		return mine.high;
	for (u32 number = 0; number < LISTENERS_AT_PORT; number++) {
		key.number = number;
		known = bpf_map_lookup_elem(&watched_listeners, &key);
		if (!known) {
			add_watched(&key, &mine);
			return mine.high;
		}
		if (known->address == mine.address && !begins) {
			raise_high(known, mine.high);
			return known->high;
		}
		if (known->address == mine.address || !still_listens(known, key.port.port)) {
			known->address = mine.address;
			known->high = mine.high;
			return mine.high;
		}
	}
	count_no_room(NO_ROOM_QUEUES);
	return mine.high;
}

/* The last listener at the port takes its place. */
static __noinline int forget_listener(struct sock *sk)
{
	struct watched_listener *first, *last, *known;
	struct watched_key key;
	u32 count;

	watched_key_of(sk, &key);
	first = bpf_map_lookup_elem(&watched_listeners, &key);
	if (!first)
		return 0;
	count = first->count;
	key.number = count - 1;
	last = bpf_map_lookup_elem(&watched_listeners, &key);
	if (!last)
		return 0;
	for (u32 number = 0; number < LISTENERS_AT_PORT; number++) {
		key.number = number;
		known = bpf_map_lookup_elem(&watched_listeners, &key);
		if (!known)
			return 0;
		if (known->address != (u64)sk)
			continue;
		known->address = last->address;
		known->high = last->high;
		first->count = count - 1;
		key.number = count - 1;
		bpf_map_delete_elem(&watched_listeners, &key);
		return 0;
	}
	return 0;
}

static __noinline int look_at_queues(struct sock *child)
{
	struct watched_listener *known;
	struct watched_key key;

	watched_key_of(child, &key);
	for (u32 number = 0; number < LISTENERS_AT_PORT; number++) {
		key.number = number;
		known = bpf_map_lookup_elem(&watched_listeners, &key);
		if (!known)
			break;
		if (still_listens(known, key.port.port))
			raise_high(known, queue_of((struct sock *)known->address));
	}
	return 0;
}

static __always_inline void watch_state(struct sock *sk, int old, int new)
{
	if (!is_tcp(sk))
		return;
	if (old == TCP_SYN_RECV && new == TCP_ESTABLISHED)
		look_at_queues(sk);
	else if (new == TCP_LISTEN)
		watch_listener(sk, true);
	else if (old == TCP_LISTEN && new == TCP_CLOSE)
		forget_listener(sk);
}

#endif
