/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Owner of the socket that closed last on this CPU. A segment that ends an orphaned connection, such as data
 * to a socket in FIN_WAIT2, destroys the socket before the kernel drops the segment, and tcp_destroy_sock has
 * removed the socket's entry from the hash by then. Slots and socket storage keep theirs.
 */
#ifndef CGNET_DROP_LAST_CLOSED_BPF_H
#define CGNET_DROP_LAST_CLOSED_BPF_H

#include "owner/ledger.bpf.h"

struct closed {
	u64 sk;
	u32 role;
	u32 pad;
	struct holder holder;
};

RAW_ONLY struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct closed);
} last_closed SEC(".maps");

/* Handle a socket that closes, of a program whose ledger is the hash. */
static __always_inline void remember_closed(struct sock *sk)
{
	struct closed *last = bpf_map_lookup_elem(&last_closed, &(u32){0});
	struct ledger_entry *entry = ledger_find(false, sk);

	if (!last)
		return;
	last->sk = 0;
	if (!entry || !entry->whole)
		return;
	last->holder = *holder_of(entry);
	last->role = entry->role;
	last->sk = (u64)sk;
}

/* The last closed socket, if it is this one, or NULL. */
static __always_inline struct closed *closed_as(struct sock *sk)
{
	struct closed *last = bpf_map_lookup_elem(&last_closed, &(u32){0});

	return last && sk && last->sk == (u64)sk ? last : NULL;
}

#endif
