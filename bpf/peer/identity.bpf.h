/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Identity of a connection by its initial sequence numbers, which address translation leaves alone. */
#ifndef CGNET_PEER_IDENTITY_BPF_H
#define CGNET_PEER_IDENTITY_BPF_H

#include "base/program.bpf.h"
#include "abi/peer.h"

static __always_inline void no_identity(struct identity *identity)
{
	identity->local = identity->remote = 0;
}

/*
 * TCP counts the bytes by which it advances snd_una and rcv_nxt, a FIN and the client's SYN included: what is
 * left without them are the numbers at the start, also after data in a SYN (TCP_FASTOPEN). The caller knows
 * the role, and that the socket was not restored.
 */
static __always_inline void identity_of(const bool typed, struct tcp_sock *tp, u32 role,
					struct identity *identity)
{
	identity->local = READ_AS(typed, tp, snd_una) - (u32)READ_AS(typed, tp, bytes_acked) +
			  (role == ROLE_CLIENT);
	identity->remote = READ_AS(typed, tp, rcv_nxt) - (u32)READ_AS(typed, tp, bytes_received);
	if (identity->local == identity->remote) /* which end is which? */
		no_identity(identity);
}

/* Whoever may set TCP_REPAIR chooses the sequence numbers, and may claim those of any connection. */
static __always_inline bool is_restored(const bool typed, struct tcp_sock *tp)
{
	return READ_BITFIELD_AS(typed, tp, repair);
}

/* Identity at the time the connection is established. */
static __always_inline void identity_at_start(struct tcp_sock *tp, u32 role,
					      struct identity *identity)
{
	if (is_restored(TYPED, tp))
		no_identity(identity);
	else
		identity_of(TYPED, tp, role, identity);
}

#endif
