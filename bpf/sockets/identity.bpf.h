/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Identity of a connection that may have begun before the start: by what TCP has counted since then. */
#ifndef CGNET_SOCKETS_IDENTITY_BPF_H
#define CGNET_SOCKETS_IDENTITY_BPF_H

#include "peer/identity.bpf.h"
#include "sockets/measure.bpf.h"

#define TRIES 3
#define STATES_OF_CONNECTIONS (1 << TCP_ESTABLISHED | 1 << TCP_CLOSE_WAIT | STATES_AFTER_OUR_FIN)

/* Return whether both of two reads found the same: a segment may change the counts meanwhile. */
static __always_inline bool read_twice(struct tcp_sock *tp, struct tcp_counts *to)
{
	struct tcp_counts again;
	u64 differ;

	read_counts(tp, to);
	read_counts(tp, &again);
	differ = (to->bytes_acked ^ again.bytes_acked) | (to->bytes_sent ^ again.bytes_sent) |
		 (to->bytes_retrans ^ again.bytes_retrans) |
		 (to->bytes_received ^ again.bytes_received) | (to->snd_una ^ again.snd_una) |
		 (to->snd_nxt ^ again.snd_nxt) | (to->write_seq ^ again.write_seq) |
		 (to->rcv_nxt ^ again.rcv_nxt);
	return !differ;
}

/* Members that vmlinux.h leaves out. */
struct tcp_sock___delivered {
	u32 delivered;
	u32 data_segs_out;
} __attribute__((preserve_access_index));

/*
 * A handshake delivers a SYN or a SYN-ACK, which is no segment with data; TCP_REPAIR delivers nothing. After a
 * FIN another such segment is on its way, or was delivered. Fast Open counts its SYN as data: it shows none.
 */
static __always_inline bool made_handshake(struct tcp_sock *tp, u8 state)
{
	struct tcp_sock___delivered *part = (void *)tp;
	u32 sent = BPF_CORE_READ(part, delivered) + BPF_CORE_READ(tp, packets_out) -
		   BPF_CORE_READ(tp, sacked_out);
	u32 data = BPF_CORE_READ(part, data_segs_out) - BPF_CORE_READ(tp, total_retrans);

	return (s32)(sent - data) >= 1 + fin_was_sent(state);
}

static __always_inline void identify(struct sock *sk, u8 state, struct socket_event *to)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct tcp_counts counts;
	u8 role;

	no_identity(&to->counted);
	no_identity(&to->identity);
	if (!(STATES_OF_CONNECTIONS >> (state & 31) & 1) || is_restored(false, tp))
		return;
	for (u32 i = 0; i < TRIES; i++) {
		if (!read_twice(tp, &counts))
			continue;
		role = role_by(&counts, state);
		if (!role)
			return;
		to->counted.local =
			counts.snd_una - (u32)counts.bytes_acked + (role == ROLE_CLIENT);
		to->counted.remote = counts.rcv_nxt - (u32)counts.bytes_received;
		if (to->counted.local == to->counted.remote)
			no_identity(&to->counted);
		else if (!BPF_CORE_READ(sk, sk_lock.owned) && made_handshake(tp, state))
			to->identity = to->counted;
		return;
	}
}

#endif
