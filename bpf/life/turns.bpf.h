/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Turns of a server: from the last byte of a request that it received to the first byte of the answer that it
 * sent. No payload is read.
 *
 * tcp_probe fires for each segment of an established connection, before TCP processes it. The first segment
 * after an answer has acknowledged none of it yet: until then tcp_sock.first_tx_mstamp is when its first byte
 * was sent, if nothing was in flight before.
 */
#ifndef CGNET_LIFE_TURNS_BPF_H
#define CGNET_LIFE_TURNS_BPF_H

#include "base/payload.bpf.h"
#include "life/private.bpf.h"
#include "owner/all_sockets.bpf.h"
#include "sums/hooks.bpf.h"

static __always_inline void keep_turn(struct ledger_entry *entry, u32 took_us)
{
	struct turns *turns = &entry->private.life.turns;
	const struct holder *holder = holder_of(entry);

	if (!turns->told.count || took_us < turns->told.least_us)
		turns->told.least_us = took_us;
	if (took_us > turns->told.greatest_us)
		turns->told.greatest_us = took_us;
	turns->sum_us += took_us;
	turns->told.count++;
	turns->told.mean_us = turns->sum_us / turns->told.count;
	if (holder->wanted && entry->role == ROLE_SERVER)
		sum_turn(&holder->owner, took_us);
}

/*
 * An answer ends the turn. Its time is unknown if data that was sent before the request was still in flight, or
 * if nobody saw the first acknowledgement of the answer, as in TCP_CLOSE_WAIT.
 */
static __always_inline void turn_ends(struct tcp_sock *tp, struct ledger_entry *entry)
{
	struct turns *turns = &entry->private.life.turns;
	u64 took_us;

	if (!turns->request_us || READ(tp, snd_nxt) == turns->sent)
		return;
	took_us = READ(tp, first_tx_mstamp) - turns->request_us; /* huge: sent before the request */
	turns->request_us = 0;
	if ((s32)(READ(tp, snd_una) - turns->sent) <= 0 && took_us < ~0U)
		keep_turn(entry, took_us);
}

/* Our FIN is no answer. */
static __always_inline void turns_end(struct tcp_sock *tp, struct ledger_entry *entry)
{
	turn_ends(tp, entry);
	entry->private.life.turns.request_us = 0;
}

/*
 * Each segment with new payload restarts the wait for an answer; retransmitted payload doesn't. The role of a
 * connection from before the start is unknown here: user space decides whether this socket is the server.
 */
static __always_inline void turn_goes_on(struct sock *sk, struct sk_buff *skb,
					 struct ledger_entry *entry)
{
	struct turns *turns = &entry->private.life.turns;
	struct tcp_sock *tp = tcp_sock_of(sk);

	if (!tp || entry->role == ROLE_CLIENT || turns->speaks_first)
		return;
	turn_ends(tp, entry);
	if (!has_new_payload(tp, skb))
		return;
	if (!READ(tp, bytes_received) && READ(tp, data_segs_out)) {
		turns->speaks_first = 1;
		return;
	}
	turns->sent = READ(tp, snd_nxt);
	turns->request_us = bpf_ktime_get_ns() / NSEC_PER_USEC;
}

static __always_inline int life_on_probe(struct sock *sk, struct sk_buff *skb)
{
	struct ledger_entry *entry = ledger_of(true, sk);

	if (entry)
		turn_goes_on(sk, skb, entry);
	return 0;
}

#endif
