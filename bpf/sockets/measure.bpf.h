/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Values of a socket, as `ss -tinmo` shows them. All is read with fault handling, and without its lock. */
#ifndef CGNET_SOCKETS_MEASURE_BPF_H
#define CGNET_SOCKETS_MEASURE_BPF_H

#include "base/flow.bpf.h"
#include "base/payload.bpf.h"
#include "sockets/query.bpf.h"

/* include/net/inet_connection_sock.h */
#define ICSK_TIME_RETRANS 1
#define ICSK_TIME_PROBE0 3
#define ICSK_TIME_LOSS_PROBE 5
#define ICSK_TIME_REO_TIMEOUT 6
#define INFINITE_SSTHRESH 0x7fffffff /* include/net/tcp.h: TCP_INFINITE_SSTHRESH */
#define USEC_PER_SEC 1000000ULL
#define CHRONO_BUSY 1 /* enum tcp_chrono */
#define CHRONO_RWND 2
#define CHRONO_SNDBUF 3

/* The timers have moved to struct sock, and changed their names, after v6.18. */
struct sock___after_v619 {
	struct timer_list tcp_retransmit_timer;
} __attribute__((preserve_access_index));

struct inet_connection_sock___after_v619 {
	struct timer_list icsk_keepalive_timer;
} __attribute__((preserve_access_index));

static __always_inline u64 retransmit_expires(struct sock *sk)
{
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)sk;
	struct sock___after_v619 *newer = (void *)sk;

	if (bpf_core_field_exists(newer->tcp_retransmit_timer))
		return BPF_CORE_READ(newer, tcp_retransmit_timer.expires);
	return BPF_CORE_READ(icsk, icsk_retransmit_timer.expires);
}

/* 0: it is not running. */
static __always_inline u64 keepalive_expires(struct sock *sk)
{
	struct inet_connection_sock___after_v619 *newer = (void *)sk;

	if (bpf_core_field_exists(newer->icsk_keepalive_timer)) {
		if (!BPF_CORE_READ(newer, icsk_keepalive_timer.entry.pprev))
			return 0;
		return BPF_CORE_READ(newer, icsk_keepalive_timer.expires);
	}
	return BPF_CORE_READ(sk, sk_timer.entry.pprev) ? BPF_CORE_READ(sk, sk_timer.expires) : 0;
}

static __always_inline u64 in_us(const struct socket_query *asked, u64 jiffies)
{
	return asked->hz ? jiffies * USEC_PER_SEC / asked->hz : ~0ULL;
}

/* `now` is 0 where jiffies are unknown. */
static __always_inline u64 until(const struct socket_query *asked, u64 now, u64 expires)
{
	s64 left = expires - now;

	if (!now)
		return ~0ULL;
	return left > 0 ? in_us(asked, left) : 0;
}

static __always_inline u64 since(const struct socket_query *asked, u64 now, u32 then)
{
	s32 passed = (u32)now - then;

	if (!now)
		return ~0ULL;
	return passed > 0 ? in_us(asked, passed) : 0;
}

static __always_inline void measure_timer(const struct socket_query *asked, u64 now,
					  struct sock *sk, struct open_socket *to)
{
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)sk;
	u8 pending = BPF_CORE_READ(icsk, icsk_pending);
	u64 expires;

	if (pending == ICSK_TIME_RETRANS || pending == ICSK_TIME_LOSS_PROBE ||
	    pending == ICSK_TIME_REO_TIMEOUT) {
		to->timer = TIMER_ON;
		to->timer_us = until(asked, now, retransmit_expires(sk));
	} else if (pending == ICSK_TIME_PROBE0) {
		to->timer = TIMER_PROBE;
		to->timer_us = until(asked, now, retransmit_expires(sk));
	} else {
		expires = keepalive_expires(sk);
		if (expires) {
			to->timer = TIMER_KEEPALIVE;
			to->timer_us = until(asked, now, expires);
		}
	}
}

/* Time that a sender was limited, by the kernel's chronometer, which counts in jiffies. */
static __always_inline void measure_limits(const struct socket_query *asked, u64 now,
					   struct tcp_sock *tp, struct open_socket *to)
{
	u32 kind = BPF_CORE_READ_BITFIELD_PROBED(tp, chrono_type);
	u32 running = (u32)now - BPF_CORE_READ(tp, chrono_start);
	u32 busy = BPF_CORE_READ(tp, chrono_stat[CHRONO_BUSY - 1]);
	u32 rwnd = BPF_CORE_READ(tp, chrono_stat[CHRONO_RWND - 1]);
	u32 sndbuf = BPF_CORE_READ(tp, chrono_stat[CHRONO_SNDBUF - 1]);

	if (kind == CHRONO_RWND || kind == CHRONO_SNDBUF)
		to->limited_by = kind;
	if (!now)
		return;
	if (kind == CHRONO_BUSY)
		busy += running;
	else if (kind == CHRONO_RWND)
		rwnd += running;
	else if (kind == CHRONO_SNDBUF)
		sndbuf += running;
	to->busy_us = in_us(asked, (u64)busy + rwnd + sndbuf);
	to->rwnd_limited_us = in_us(asked, rwnd);
	to->sndbuf_limited_us = in_us(asked, sndbuf);
}

static __always_inline u64 delivery_rate(struct tcp_sock *tp)
{
	u32 interval = BPF_CORE_READ(tp, rate_interval_us);
	u64 delivered = BPF_CORE_READ(tp, rate_delivered);

	if (!interval || !delivered)
		return ~0ULL;
	return delivered * BPF_CORE_READ(tp, mss_cache) * USEC_PER_SEC / interval;
}

static __always_inline u32 not_below_zero(u32 difference)
{
	return (s32)difference > 0 ? difference : 0;
}

static __always_inline void measure_connection(const struct socket_query *asked, u64 now,
					       struct sock *sk, struct open_socket *to)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)sk;
	u32 una = BPF_CORE_READ(tp, snd_una), end = BPF_CORE_READ(tp, write_seq);
	u32 ssthresh = BPF_CORE_READ(tp, snd_ssthresh);
	u32 srtt = BPF_CORE_READ(tp, srtt_us) >> 3;

	to->recv_q = not_below_zero(BPF_CORE_READ(tp, rcv_nxt) - BPF_CORE_READ(tp, copied_seq));
	to->send_q = end - una;
	to->unsent = not_below_zero(end - BPF_CORE_READ(tp, snd_nxt));
	to->cwnd = BPF_CORE_READ(tp, snd_cwnd);
	if (ssthresh < INFINITE_SSTHRESH)
		to->ssthresh = ssthresh;
	to->mss = BPF_CORE_READ(tp, mss_cache);
	if (srtt)
		to->srtt_us = srtt;
	to->min_rtt_us = BPF_CORE_READ(tp, rtt_min.s[0].v);
	to->retrans = BPF_CORE_READ(tp, total_retrans);
	to->last_sent_us = since(asked, now, BPF_CORE_READ(tp, lsndtime));
	to->last_received_us = since(asked, now, BPF_CORE_READ(icsk, icsk_ack.lrcvtime));
	to->delivery_rate = delivery_rate(tp);
	to->tx_bytes = payload_acknowledged(false, tp, 0, to->tcp_state);
	to->rx_bytes = payload_received(false, sk, tp);
	measure_limits(asked, now, tp, to);
	measure_timer(asked, now, sk, to);
}

static __always_inline void measure_listener(struct sock *sk, struct open_socket *to)
{
	to->recv_q = to->queue = BPF_CORE_READ(sk, sk_ack_backlog);
	to->send_q = to->backlog = BPF_CORE_READ(sk, sk_max_ack_backlog);
	to->drops = BPF_CORE_READ(sk, sk_drops.counter);
	to->role = ROLE_SERVER;
}

static __always_inline void measure_time_wait(const struct socket_query *asked, u64 now,
					      struct sock *sk, struct open_socket *to)
{
	struct inet_timewait_sock *tw = (struct inet_timewait_sock *)sk;

	to->tcp_state = BPF_CORE_READ(tw, tw_substate);
	to->recv_q = to->send_q = 0;
	to->timer = TIMER_TIMEWAIT;
	to->timer_us = until(asked, now, BPF_CORE_READ(tw, tw_timer.expires));
}

static __always_inline void measure_request(const struct socket_query *asked, u64 now,
					    struct sock *sk, struct open_socket *to)
{
	struct request_sock *request = (struct request_sock *)sk;

	to->tcp_state = TCP_SYN_RECV;
	to->recv_q = to->send_q = 0;
	to->retrans = BPF_CORE_READ(request, num_retrans);
	to->timer = TIMER_ON;
	to->timer_us = until(asked, now, BPF_CORE_READ(request, rsk_timer.expires));
	to->role = ROLE_SERVER;
}

/* What TCP counts in both directions. */
struct tcp_counts {
	u64 bytes_acked;
	u64 bytes_sent;
	u64 bytes_retrans;
	u64 bytes_received;
	u32 snd_una;
	u32 snd_nxt;
	u32 write_seq;
	u32 rcv_nxt;
};

static __always_inline void read_counts(struct tcp_sock *tp, struct tcp_counts *to)
{
	to->bytes_acked = BPF_CORE_READ(tp, bytes_acked);
	to->bytes_sent = BPF_CORE_READ(tp, bytes_sent);
	to->bytes_retrans = BPF_CORE_READ(tp, bytes_retrans);
	to->bytes_received = BPF_CORE_READ(tp, bytes_received);
	to->snd_una = BPF_CORE_READ(tp, snd_una);
	to->snd_nxt = BPF_CORE_READ(tp, snd_nxt);
	to->write_seq = BPF_CORE_READ(tp, write_seq);
	to->rcv_nxt = BPF_CORE_READ(tp, rcv_nxt);
}

/*
 * Side of a connection. `bytes_acked` counts the client's SYN and an acknowledged FIN, and `bytes_sent`
 * neither: the difference shows the side. A socket that was restored (TCP_REPAIR) sent no SYN.
 */
static __always_inline u8 role_by(const struct tcp_counts *counts, u8 state)
{
	u64 acked =
		counts->bytes_sent - counts->bytes_retrans - (counts->snd_nxt - counts->snd_una);

	if (fin_was_sent(state) && counts->snd_nxt == counts->write_seq)
		acked += 1;
	switch (counts->bytes_acked - acked) {
	case 0:
		return ROLE_SERVER;
	case 1:
		return ROLE_CLIENT;
	}
	return 0;
}

static __always_inline u8 role_of(struct sock *sk, u8 state)
{
	struct tcp_counts counts;

	if (state == TCP_SYN_SENT)
		return ROLE_CLIENT;
	if (state == TCP_SYN_RECV)
		return ROLE_SERVER;
	read_counts((struct tcp_sock *)sk, &counts);
	return role_by(&counts, state);
}

#endif
