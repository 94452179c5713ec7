/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Connection attempt: its start, and the outcome of its decision. */
#ifndef CGNET_CONNECT_ATTEMPT_BPF_H
#define CGNET_CONNECT_ATTEMPT_BPF_H

#include "connect/connect_calls.bpf.h"
#include "base/flow.bpf.h"
#include "abi/connect.h"

#define EADDRNOTAVAIL 99
#define USEC_PER_MSEC 1000ULL

struct attempt_start {
	u64 start_ns;	   /* 0: none in progress */
	u32 segs_out;	   /* of the socket, before the attempt */
	u16 total_retrans; /* its lower half */
	u8 icmp_error;	   /* errno of the last ICMP error in TCP_SYN_SENT; 0: none */
	u8 unwanted;	   /* 1: followed for its peer alone */
};

/*
 * A socket that connects again starts from zero since Linux kernel commits 784f8344de75 "tcp: clear
 * tp->segs_{in|out} in tcp_disconnect()" and c13c48c00a6b "tcp: clear tp->total_retrans in tcp_disconnect()"
 * (in v5.6). Typed programs require later kernels.
 */
static __always_inline void attempt_begins(struct sock *sk, struct attempt_start *attempt)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;

	attempt->segs_out = TYPED ? 0 : BPF_CORE_READ(tp, segs_out);
	attempt->total_retrans = TYPED ? 0 : BPF_CORE_READ(tp, total_retrans);
	attempt->icmp_error = 0;
	attempt->start_ns = bpf_ktime_get_ns();
}

#define SO_EE_ORIGIN_ICMP 2 /* linux/errqueue.h */
#define SO_EE_ORIGIN_ICMP6 3

/* errno of the last error in a socket's error queue, if it is an ICMP error; else 0. */
static __always_inline u32 queued_icmp_error(struct sock *sk)
{
	struct sk_buff *last = BPF_CORE_READ(sk, sk_error_queue.prev);
	struct sock_exterr_skb *queued;
	struct sock_extended_err error = {};

	if (!last || (void *)last == (void *)&sk->sk_error_queue)
		return 0;
	queued = (void *)last + bpf_core_field_offset(last->cb);
	bpf_core_read(&error, sizeof(error), &queued->ee);
	if (error.ee_origin != SO_EE_ORIGIN_ICMP && error.ee_origin != SO_EE_ORIGIN_ICMP6)
		return 0;
	return error.ee_errno;
}

/*
 * An ICMP error that arrives while connect() has the socket ends no attempt: tcp_v4_err() stores it in
 * sk_err_soft, from where getsockopt(SO_ERROR) takes it, and queues it. It queues the error since Linux
 * kernel commit 45af29ca761c "tcp: allow traceroute -Mtcp for unpriv users" (in v5.8).
 */
static __always_inline bool may_have_icmp_error(struct sock *sk)
{
	return READ(sk, __sk_common.skc_state) == TCP_SYN_SENT && is_tcp(sk);
}

static __always_inline void attempt_has_error(struct sock *sk, struct attempt_start *attempt)
{
	if (attempt->start_ns)
		attempt->icmp_error = queued_icmp_error(sk);
}

/*
 * tcp_v4_connect() and tcp_v6_connect() return to TCP_CLOSE themselves if they could not send a SYN, nearly
 * always for lack of a free local port: then nothing has set sk_err, shut the socket down or sent a segment.
 * A SYN that TCP_FASTOPEN_CONNECT holds back was not sent either, but its socket has a port.
 */
static __always_inline bool found_no_port(struct sock *sk, struct tcp_sock *tp,
					  const struct attempt_start *attempt)
{
	if (READ_BITFIELD(sk, sk_shutdown) || READ(tp, segs_out) != attempt->segs_out)
		return false;
	return !READ_BITFIELD(tp, fastopen_connect) || !READ(tp, inet_conn.icsk_inet.inet_sport);
}

/*
 * Without an error the local side ended the attempt: close, shutdown, AF_UNSPEC. If an ICMP error came
 * before, the application sees that error.
 */
static __always_inline int attempt_result(struct sock *sk, struct tcp_sock *tp,
					  const struct attempt_start *attempt, int newstate)
{
	int err;

	if (likely(newstate == TCP_ESTABLISHED))
		return RESULT_OK;
	err = READ(sk, sk_err);
	if (err)
		return err;
	if (found_no_port(sk, tp, attempt))
		return EADDRNOTAVAIL;
	if (attempt->icmp_error)
		return attempt->icmp_error;
	err = soft_error_since(sk, attempt->start_ns);
	if (err)
		return err;
	err = READ(sk, sk_err_soft);
	return err ? err : RESULT_ABORTED;
}

/*
 * Time since TCP sent the first SYN, by its own clocks: the handshake's round trip if there is one and the
 * SYN was not retransmitted, else the stamp for retransmissions, in TCP's time stamp unit. That was the
 * millisecond until Linux kernel commit 614e8316aa4c "tcp: add support for usec resolution in TCP TS values"
 * (in v6.7).
 */
static __always_inline u64 since_first_syn(struct tcp_sock *tp, u32 retrans)
{
	u32 srtt_us = READ(tp, srtt_us) >> 3;
	u32 stamp = READ(tp, retrans_stamp);
	u64 now_us = READ(tp, tcp_mstamp);

	if (srtt_us && !retrans)
		return (u64)srtt_us * NSEC_PER_USEC;
	if (bpf_core_field_exists(tp->tcp_usec_ts) && READ_BITFIELD(tp, tcp_usec_ts))
		return (u64)((u32)now_us - stamp) * NSEC_PER_USEC;
	return (u64)((u32)(now_us / USEC_PER_MSEC) - stamp) * NSEC_PER_MSEC;
}

/*
 * With TCP_FASTOPEN_CONNECT and a cached cookie, connect() returns in TCP_SYN_SENT and the SYN waits for the
 * first write, however long the application takes. The network does not cause that wait.
 */
static __always_inline u64 attempt_latency(struct tcp_sock *tp, const struct attempt_start *attempt,
					   u64 now, u32 retrans)
{
	u64 latency = now - attempt->start_ns;

	if (unlikely(READ_BITFIELD(tp, fastopen_connect)) &&
	    READ(tp, segs_out) != attempt->segs_out) {
		u64 since_syn = since_first_syn(tp, retrans);

		if (since_syn + 2 * NSEC_PER_MSEC < latency)
			return since_syn;
	}
	return latency;
}

static __always_inline void outcome_of_attempt(struct sock *sk, struct tcp_sock *tp,
					       const struct attempt_start *attempt, u64 now,
					       int oldstate, int newstate, struct outcome *outcome)
{
	u32 retrans = (u16)(READ(tp, total_retrans) - attempt->total_retrans);

	outcome->latency_ns = attempt_latency(tp, attempt, now, retrans);
	outcome->syn_retrans = retrans;
	outcome->result = attempt_result(sk, tp, attempt, newstate);
	outcome->tcp_state = newstate == TCP_ESTABLISHED ? newstate : oldstate;
	outcome->role = ROLE_CLIENT;
}

#endif
