/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Cause and statistics of a connection's end, from its socket on the way to TCP_CLOSE. */
#ifndef CGNET_LIFE_CLOSE_CAUSE_BPF_H
#define CGNET_LIFE_CLOSE_CAUSE_BPF_H

#include "base/payload.bpf.h"
#include "life/limits.bpf.h"
#include "life/private.bpf.h"
#include "owner/ledger.bpf.h"
#include "abi/life.h"

#define ECONNABORTED 103
#define EPIPE 32
#define ECONNRESET 104
#define RCV_SHUTDOWN 1
#define SHUTDOWN_MASK 3
/* -- statistics */

static __always_inline void measure_life(const bool typed, struct sock *sk, struct tcp_sock *tp,
					 u32 role, u32 state, struct life *life)
{
	measure_limits(typed, tp, life);
	life->tx_bytes = payload_acknowledged(typed, tp, role, state);
	life->rx_bytes = payload_received(typed, sk, tp);
	life->tx_segs = READ_AS(typed, tp, segs_out);
	life->rx_segs = READ_AS(typed, tp, segs_in);
	life->retrans = READ_AS(typed, tp, total_retrans);
	life->srtt_us = READ_AS(typed, tp, srtt_us) >> 3;
	life->min_rtt_us = READ_AS(typed, tp, rtt_min.s[0].v);
	life->tcp_state = state;
	life->role = role;
}

/* -- side and cause of the end */

/* Kind of event at tcp_receive_reset. */
enum reset_received {
	RESET_NONE = 0,
	RESET_OF_PEER = 1,
	RESET_FOR_LATE_DATA = 2,
};

/*
 * TCP does not accept data for an application that has closed: it ends the connection by the function that
 * processes a peer's reset, and sends a reset itself. The arguments are the amounts received by the time of
 * our FIN.
 */
static __always_inline bool data_came_late(struct sock *sk, struct tcp_sock *tp, u32 data_segs,
					   u32 bytes)
{
	u8 state = READ(sk, __sk_common.skc_state);

	return (state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2) &&
	       READ_BITFIELD(sk, sk_shutdown) & RCV_SHUTDOWN &&
	       READ(tp, data_segs_in) != data_segs && (u32)READ(tp, bytes_received) == bytes;
}

/* This reset is sent after a socket that no process has open is gone: its reason is known, not seen. */
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

/* close() shuts the socket down first, and only the socket's user disconnects it; `ss -K` does neither. */
static __always_inline bool was_killed(struct sock *sk, int err, const struct owner *owner)
{
	if (err)
		return err == ECONNABORTED;
	return (READ_BITFIELD(sk, sk_shutdown) & SHUTDOWN_MASK) != SHUTDOWN_MASK &&
	       runs_for_user(sk) && owner->pid && owner->pid != bpf_get_current_pid_tgid() >> 32;
}

/*
 * A reset followed our FIN: the application disconnects, or closes with a linger time of 0. A socket that
 * gets to TIME_WAIT is closed by then, or has the peer's FIN.
 */
static __always_inline bool reset_after_fin(struct sock *sk, u32 state)
{
	return (state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2) &&
	       !has_flag(TYPED, sk, SOCK_DEAD) && !has_flag(TYPED, sk, SOCK_DONE);
}

/* Side and cause in one number. */
#define ENDING(by, cause) ((by) | (cause) << 8)

/*
 * sk_err is still set: the kernel clears it when the application reads it. The last state shows whose FIN
 * came first, and a time-out takes precedence over the reset that we send then.
 */
static __always_inline u32 how_it_ended(struct sock *sk, u32 state, u32 reset_received,
					const struct owner *owner)
{
	int err = READ(sk, sk_err);

	if (reset_received == RESET_FOR_LATE_DATA)
		return ENDING(CLOSED_BY_LOCAL, CLOSE_RST);
	if (reset_received || err == ECONNRESET || err == EPIPE)
		return ENDING(CLOSED_BY_PEER, CLOSE_RST);
	if (was_killed(sk, err, owner))
		return ENDING(CLOSED_BY_KERNEL, CLOSE_ABORT);
	if (err)
		return ENDING(CLOSED_BY_KERNEL, CLOSE_TIMEOUT);
	if (!fin_was_sent(state) || reset_after_fin(sk, state))
		return ENDING(CLOSED_BY_LOCAL, CLOSE_RST);
	return ENDING(state == TCP_LAST_ACK ? CLOSED_BY_PEER : CLOSED_BY_LOCAL, CLOSE_FIN);
}

#endif
