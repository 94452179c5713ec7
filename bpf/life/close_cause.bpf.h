/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a connection ended, and how much it carried, as its socket tells on the way to TCP_CLOSE. */
#ifndef CGNET_LIFE_CLOSE_CAUSE_BPF_H
#define CGNET_LIFE_CLOSE_CAUSE_BPF_H

#include "owner/ledger.bpf.h"

#define ECONNABORTED 103
#define EPIPE 32
#define ECONNRESET 104
#define RCV_SHUTDOWN 1
#define SHUTDOWN_MASK 3
/* Bits of sk_flags. */
#define SOCK_DEAD 0 /* the application has closed it */
#define SOCK_DONE 1 /* the peer's FIN was taken in */

static __always_inline bool has_flag(const bool typed, struct sock *sk, u32 flag)
{
	return READ(sk, __sk_common.skc_flags) >> flag & 1;
}

/* -- what it carried */

static __always_inline bool fin_was_sent(u32 state)
{
	return state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 || state == TCP_CLOSING ||
	       state == TCP_LAST_ACK;
}

/*
 * bytes_acked counts the client's SYN, and our FIN. Of a connection whose role isn't known: what was
 * sent and isn't in flight.
 */
static __always_inline u64 payload_acknowledged(const bool typed, struct tcp_sock *tp, u32 role,
						u32 state)
{
	u32 una = READ(tp, snd_una), end = READ(tp, write_seq), next = READ(tp, snd_nxt);
	bool fin = fin_was_sent(state);
	u64 bytes, others;

	if (role) {
		bytes = READ(tp, bytes_acked);
		others = (role == ROLE_CLIENT) + (fin && una == end);
		return bytes > others ? bytes - others : 0; /* a restored socket sent no SYN */
	}
	bytes = READ(tp, bytes_sent) - READ(tp, bytes_retrans);
	return bytes - (next - una) + (fin && una != end && next == end);
}

static __always_inline u64 payload_received(const bool typed, struct sock *sk, struct tcp_sock *tp)
{
	return READ(tp, bytes_received) - has_flag(typed, sk, SOCK_DONE);
}

static __always_inline void measure_life(const bool typed, struct sock *sk, struct tcp_sock *tp,
					 u32 role, u32 state, struct life *life)
{
	life->tx_bytes = payload_acknowledged(typed, tp, role, state);
	life->rx_bytes = payload_received(typed, sk, tp);
	life->tx_segs = READ(tp, segs_out);
	life->rx_segs = READ(tp, segs_in);
	life->retrans = READ(tp, total_retrans);
	life->srtt_us = READ(tp, srtt_us) >> 3;
	life->min_rtt_us = READ(tp, rtt_min.s[0].v);
	life->tcp_state = state;
	life->role = role;
}

/* -- who ended it, and how */

/* What came to tcp_receive_reset. */
enum reset_received {
	RESET_NONE = 0,
	RESET_OF_PEER = 1,
	RESET_FOR_LATE_DATA = 2,
};

/*
 * Data that comes for an application that has closed isn't taken in: the stack ends the connection by the
 * function that takes in a peer's reset, and sends one itself. The arguments are what had been
 * received by the time of our FIN.
 */
static __always_inline bool data_came_late(const bool typed, struct sock *sk, struct tcp_sock *tp,
					   u32 data_segs, u32 bytes)
{
	u8 state = READ(sk, __sk_common.skc_state);

	return (state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2) &&
	       READ_BITFIELD(sk, sk_shutdown) & RCV_SHUTDOWN &&
	       READ(tp, data_segs_in) != data_segs && (u32)READ(tp, bytes_received) == bytes;
}

/* Of a socket that nobody has open, this reset goes out when it is gone: its reason is known, not seen. */
enum sk_rst_reason___of_late_data {
	SK_RST_REASON_TCP_ABORT_ON_DATA___of_late_data,
};

static __always_inline u16 reason_of_late_data(void)
{
	if (!bpf_core_enum_value_exists(enum sk_rst_reason___of_late_data,
					SK_RST_REASON_TCP_ABORT_ON_DATA___of_late_data))
		return 0;
	return 1 + bpf_core_enum_value(enum sk_rst_reason___of_late_data,
				       SK_RST_REASON_TCP_ABORT_ON_DATA___of_late_data);
}

/* Who closes shuts the socket down first, and who disconnects it is its user; `ss -K` is neither. */
static __always_inline bool was_killed(const bool typed, struct sock *sk, int err,
				       const struct owner *owner)
{
	if (err)
		return err == ECONNABORTED;
	return (READ_BITFIELD(sk, sk_shutdown) & SHUTDOWN_MASK) != SHUTDOWN_MASK &&
	       runs_for_user(typed, sk) && owner->pid &&
	       owner->pid != bpf_get_current_pid_tgid() >> 32;
}

/*
 * Our FIN went out, and then a reset: the application disconnects, or closes with a linger time of 0. A socket
 * that gets to TIME_WAIT is closed by now, or has the peer's FIN.
 */
static __always_inline bool reset_after_fin(const bool typed, struct sock *sk, u32 state)
{
	return (state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2) &&
	       !has_flag(typed, sk, SOCK_DEAD) && !has_flag(typed, sk, SOCK_DONE);
}

static __always_inline void tell_ending(struct life *life, u8 by, u8 cause)
{
	life->closed_by = by;
	life->close_cause = cause;
}

/*
 * sk_err is still there: it is taken away when the application asks for it. The last state tells whose FIN came
 * first, and a time-out wins over the reset that we send then.
 */
static __always_inline void how_it_ended(const bool typed, struct sock *sk, u32 state,
					 u32 reset_received, const struct owner *owner,
					 struct life *life)
{
	int err = READ(sk, sk_err);

	if (reset_received == RESET_FOR_LATE_DATA)
		tell_ending(life, CLOSED_BY_LOCAL, CLOSE_RST);
	else if (reset_received || err == ECONNRESET || err == EPIPE)
		tell_ending(life, CLOSED_BY_PEER, CLOSE_RST);
	else if (was_killed(typed, sk, err, owner))
		tell_ending(life, CLOSED_BY_KERNEL, CLOSE_ABORT);
	else if (err)
		tell_ending(life, CLOSED_BY_KERNEL, CLOSE_TIMEOUT);
	else if (!fin_was_sent(state) || reset_after_fin(typed, sk, state))
		tell_ending(life, CLOSED_BY_LOCAL, CLOSE_RST);
	else
		tell_ending(life, state == TCP_LAST_ACK ? CLOSED_BY_PEER : CLOSED_BY_LOCAL,
			    CLOSE_FIN);
}

#endif
