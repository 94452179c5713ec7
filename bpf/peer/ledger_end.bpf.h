/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ends of connections whose sockets are in the ledger. */
#ifndef CGNET_PEER_LEDGER_END_BPF_H
#define CGNET_PEER_LEDGER_END_BPF_H

#include "peer/ledger_identity.bpf.h"
#include "peer/making.bpf.h"

/* The socket is established. */
static __always_inline void ledger_end_is_made(u64 now, struct tcp_sock *tp,
					       const struct ledger_entry *entry)
{
	const struct holder *holder;
	struct identity identity;

	holder = holder_of(entry);
	identity_in_life(TYPED, tp, entry, &identity);
	end_is_made(now, &identity, &holder->owner, holder->wanted && role_passes(entry->role));
}

/* A socket's first reader is known: report it if it isn't the process that the other end has been told of. */
static __always_inline void reader_is_learnt(struct sock *sk, const struct ledger_entry *entry)
{
	struct identity identity;
	struct tcp_sock *tp;

	if (!peer_config.follow || !(entry->whole >> RANK_READ) ||
	    entry->holders[RANK_READ].owner.pid == entry->holders[RANK_OPENED].owner.pid)
		return;
	tp = tcp_sock_of(sk);
	if (!tp)
		return;
	identity_in_life(TYPED, tp, entry, &identity);
	end_is_read(bpf_ktime_get_ns(), &identity, &entry->holders[RANK_READ].owner);
}

/* The socket is closed, for commands whose records do not tell that. */
static __always_inline void ledger_end_is_over(struct sock *sk, const struct ledger_entry *entry)
{
	struct tcp_sock *tp = tcp_sock_of(sk);
	struct identity identity;

	if (!tp)
		return;
	identity_in_life(TYPED, tp, entry, &identity);
	end_is_over(bpf_ktime_get_ns(), &identity);
}

#endif
