/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The connection that a packet belongs to, where its socket is known. */
#ifndef CGNET_PEER_PACKET_END_BPF_H
#define CGNET_PEER_PACKET_END_BPF_H

#include "owner/ledger.bpf.h"
#include "peer/ledger_identity.bpf.h"

/* States in which the socket has its connection's numbers: tcp_disconnect() clears them. */
#define STATES_WITH_IDENTITY                                                                    \
	(1 << TCP_ESTABLISHED | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSE_WAIT | \
	 1 << TCP_LAST_ACK | 1 << TCP_CLOSING)

/* Full socket in a state; `is_source`: it sent the packet. Not inlined: the callers' stack has no room. */
static __noinline int end_of_packet(struct sock *sk, u8 state, bool is_source,
				    struct packet_end *end)
{
	struct ledger_entry *entry;

	end->known = 1;
	end->is_source = is_source;
	if (!(STATES_WITH_IDENTITY >> (state & 31) & 1))
		return 0;
	entry = ledger_find(TYPED, sk);
	if (entry)
		identity_in_life(false, (struct tcp_sock *)sk, entry, &end->identity);
	return 0;
}

#endif
