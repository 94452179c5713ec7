/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One socket: its owner, the filters, and its record. */
#ifndef CGNET_SOCKETS_LIST_BPF_H
#define CGNET_SOCKETS_LIST_BPF_H

#include "owner/guess.bpf.h"
#include "sockets/identity.bpf.h"
#include "sockets/measure.bpf.h"
#include "sockets/queues.bpf.h"

CONFIG(sockets_config);

static __always_inline u64 jiffies_now(const bool briefly)
{
	return briefly ? 0 : bpf_jiffies64();
}

static __always_inline void port_of(struct sock *sk, struct port_key *key)
{
	key->netns = netns_of(false, sk);
	key->port = BPF_CORE_READ(sk, __sk_common.skc_num);
}

/* The remains of connections at a listener's port belong to its owner, if all listeners there have the same. */
static __always_inline void remember_port(const struct socket_query *asked, struct sock *sk,
					  u64 inode)
{
	struct port_owner mine = {.inode = inode, .listing = asked->listing}, *known;
	struct held_socket *one, *other;
	struct port_key key;

	port_of(sk, &key);
	known = bpf_map_lookup_elem(&port_owners, &key);
	if (!known || known->listing != asked->listing) {
		if (bpf_map_update_elem(&port_owners, &key, &mine, BPF_ANY))
			count_no_room(NO_ROOM_PORTS);
		return;
	}
	one = held_now(asked, known->inode);
	other = held_now(asked, inode);
	if (!one || !other || one->holder.owner.cgroup_id != other->holder.owner.cgroup_id)
		known->inode = 0;
}

static __always_inline struct port_owner *owner_of_port(const struct socket_query *asked,
							struct sock *sk)
{
	struct port_owner *found;
	struct port_key key;

	port_of(sk, &key);
	found = bpf_map_lookup_elem(&port_owners, &key);
	return found && found->listing == asked->listing ? found : NULL;
}

/* Inode of the listener that a socket without a file comes from; 0: unknown, or from none. */
static __always_inline u64 listener_inode(const struct socket_query *asked, struct sock *sk,
					  struct open_socket *to)
{
	struct port_owner *port;

	if (BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_NEW_SYN_RECV)
		return socket_inode(BPF_CORE_READ(sk, __sk_common.skc_listener));
	port = owner_of_port(asked, sk);
	if (port && !to->role)
		to->role = ROLE_SERVER;
	return port && to->role == ROLE_SERVER ? port->inode : 0;
}

/* Owner of what no process holds: of its listener, of the kernel's record, of the namespace. */
static __always_inline bool own_remains(const struct socket_query *asked, struct sock *sk,
					bool full, struct owner *owner, struct open_socket *to)
{
	u64 inode = to->inode ? 0 : listener_inode(asked, sk, to);
	struct held_socket *listener = held_now(asked, inode);
	struct holder guess = {};

	if (listener) {
		*owner = listener->holder.owner;
		if (owner->source)
			owner->source = OWNER_INHERITED;
		return listener->holder.wanted;
	}
	if (full) {
		fall_back(sk, &guess);
	} else {
		guess.owner.hierarchy = owner_config.hierarchy[0].id;
		fall_back_to_netns(sk, &guess.owner);
		guess.wanted = guess_passes(&guess.owner);
	}
	*owner = guess.owner;
	return guess.wanted;
}

/* Return whether the owner is selected. */
static __always_inline bool own(const struct socket_query *asked, struct sock *sk, bool full,
				struct owner *owner, struct open_socket *to)
{
	struct held_socket *holder = held_now(asked, to->inode);

	if (holder) {
		to->holders = holder->processes;
		*owner = holder->holder.owner;
		return holder->holder.wanted;
	}
	to->holders = 0;
	return own_remains(asked, sk, full, owner, to);
}

static __always_inline bool state_passes(u8 state)
{
	return !sockets_config.by_state || (sockets_config.by_state >> (state & 31) & 1);
}

/* Whether a full socket is left out for sure: most are, and measuring takes the most time. */
static __always_inline bool is_left_out(const struct socket_query *asked, u64 inode, u8 state)
{
	struct held_socket *holder;

	if (!state_passes(state))
		return true;
	holder = held_now(asked, inode);
	return holder && !holder->holder.wanted;
}

/* A member of a full socket lies elsewhere, or nowhere, in others. */
static __always_inline void measure(const struct socket_query *asked, u64 now, struct sock *sk,
				    u8 state, struct open_socket *to)
{
	if (state == TCP_TIME_WAIT) {
		measure_time_wait(asked, now, sk, to);
	} else if (state == TCP_NEW_SYN_RECV) {
		measure_request(asked, now, sk, to);
	} else if (state == TCP_LISTEN) {
		measure_listener(sk, to);
	} else {
		to->role = role_of(sk, state);
		measure_connection(asked, now, sk, to);
	}
}

static __always_inline void list(const bool briefly, u64 address)
{
	struct listed_sockets *all = bpf_map_lookup_elem(&listed, &(u32){0});
	struct socket_query *asked = current_query();
	struct sock *sk = (struct sock *)address;
	struct socket_event *record;
	bool full, wanted;
	u64 inode = 0;
	u16 family;
	u32 used;
	u8 state;

	if (!all || !asked)
		return;
	used = asked->used;
	if (used >= CGNET_LISTED)
		return;
	barrier_var(used);
	used &= CGNET_LISTED - 1;
	record = &all->records[used];
	barrier_var(record); /* as in tell_namespace() */
	state = BPF_CORE_READ(sk, __sk_common.skc_state);
	full = state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6)
		return;
	if (state == TCP_CLOSE || (asked->table == WALK_LISTENERS) != (state == TCP_LISTEN))
		return;
	if (full)
		inode = socket_inode(sk);
	if (state == TCP_LISTEN && inode)
		remember_port(asked, sk, inode);
	if (asked->hide || (full && !asked->everything && is_left_out(asked, inode, state)))
		return;
	flow_of_sock(false, sk, (struct tcp_sock *)sk, &record->flow);
	if (!full)
		record->flow.sport = BPF_CORE_READ(sk, __sk_common.skc_num);
	if (!asked->everything && !flow_passes(false, sk, &record->flow))
		return;
	__builtin_memset(&record->socket, 0xff, sizeof(record->socket));
	record->socket.address = address;
	record->socket.inode = inode;
	record->socket.tcp_state = state;
	record->socket.role = record->socket.timer = record->socket.limited_by = 0;
	record->socket.shared = 0;
	measure(asked, jiffies_now(briefly), sk, state, &record->socket);
	identify(sk, state, record);
	if (!asked->everything && !state_passes(record->socket.tcp_state))
		return;
	wanted = own(asked, sk, full, &record->owner, &record->socket);
	if (!asked->everything && (!wanted || !role_passes(record->socket.role)))
		return;
	if (state == TCP_LISTEN)
		record->socket.queue_high =
			sockets_config.watches ? watch_listener(sk, false) : record->socket.queue;
	record->head.kind = RECORD_SOCKET;
	record->head.pad = 0;
	record->head.ts_ns = bpf_ktime_get_ns();
	asked->used = used + 1;
}

#endif
