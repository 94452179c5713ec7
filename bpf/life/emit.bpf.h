/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Report a connection, at its end and before. The ledger keeps the last reported values. */
#ifndef CGNET_LIFE_EMIT_BPF_H
#define CGNET_LIFE_EMIT_BPF_H

#include "life/private.bpf.h"
#include "life/close_cause.bpf.h"
#include "peer/ledger_identity.bpf.h"

CROSSES_TO_USER_SPACE(life_event);
CONFIG(life_config);

static __always_inline bool life_passes(const struct life *life)
{
	if (life->duration_ns < life_config.min_ns ||
	    life->tx_bytes + life->rx_bytes < life_config.min_bytes)
		return false;
	if (life_config.by_closed && !(life_config.by_closed >> life->closed_by & 1))
		return false;
	return !life_config.by_cause || (life_config.by_cause >> life->close_cause & 1);
}

static __always_inline void fill_life(struct life_event *event, const struct owner *owner,
				      const struct flow *flow, const struct life *life,
				      const struct identity *identity)
{
	event->owner = *owner;
	event->flow = *flow;
	event->life = *life;
	event->identity = *identity;
}

/* Return whether a record was sent. */
static __always_inline bool emit_life(u64 now, const struct owner *owner, const struct flow *flow,
				      const struct life *life, const struct identity *identity)
{
	struct life_event *event;

	if (!life_passes(life))
		return false;
	event = reserve_in(RING_LIVES, sizeof(*event), RECORD_LIFE, now, LOST_RING);
	if (!event)
		return false;
	fill_life(event, owner, flow, life, identity);
	submit(event);
	return true;
}

static __always_inline void life_so_far(const bool typed, u64 now, struct sock *sk,
					struct tcp_sock *tp, struct ledger_entry *entry, u32 state,
					struct life *life)
{
	struct life_private *mine = &entry->private.life;

	measure_life(typed, sk, tp, entry->role, state, life);
	life->handshake_ns = mine->handshake_ns;
	if (mine->established_ns)
		life->duration_ns = now - mine->established_ns;
	__builtin_memcpy(&life->turns, &mine->turns.told, sizeof(mine->turns.told));
	life->tx_bytes_delta = life->tx_bytes - mine->told_tx_bytes;
	life->rx_bytes_delta = life->rx_bytes - mine->told_rx_bytes;
	life->retrans_delta = life->retrans - mine->told_retrans;
}

static __always_inline void told(struct life_private *mine, const struct life *life)
{
	mine->told_tx_bytes = life->tx_bytes;
	mine->told_rx_bytes = life->rx_bytes;
	mine->told_retrans = life->retrans;
}

#endif
