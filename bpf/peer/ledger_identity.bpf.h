/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Identity of a connection whose socket is in the ledger. */
#ifndef CGNET_PEER_LEDGER_IDENTITY_BPF_H
#define CGNET_PEER_LEDGER_IDENTITY_BPF_H

#include "owner/entry.bpf.h"
#include "peer/identity.bpf.h"

/* At any time until the socket's end. */
static __always_inline void identity_in_life(const bool typed, struct tcp_sock *tp,
					     const struct ledger_entry *entry,
					     struct identity *identity)
{
	if (entry->role && entry->made)
		identity_of(typed, tp, entry->role, identity);
	else
		no_identity(identity);
}

#endif
