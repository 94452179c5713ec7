/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Write time of data that TCP did not send at once: Nagle's algorithm, a window or pacing held it back.
 *
 * sock_send_length reports a write when it is complete (Linux kernel commit 6e6eda44b939 "sock: add
 * tracepoint for send recv length", in v6.3). The log records the data in the queue at that time; data sent
 * before has not waited, or its write waits, too, for room in the queue.
 */
#ifndef CGNET_TRACE_SEND_QUEUE_BPF_H
#define CGNET_TRACE_SEND_QUEUE_BPF_H

#include "trace/in_flight.bpf.h"

#define WRITE_SOCKETS 1024 /* a power of two */
#define WRITES 16	   /* likewise */

struct write {
	u64 ts_ns;
	u32 behind; /* sequence number after its data */
	u32 held;   /* enum stage_at: reason for the wait */
};

/* Log of a socket's last writes that left data in its queue. */
struct write_log {
	u64 sk;
	u64 count;
	struct write writes[WRITES];
};

/* Direct-mapped table by the socket's address; on a collision the later socket takes the slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WRITE_SOCKETS);
	__type(key, u32);
	__type(value, struct write_log);
} write_logs SEC(".maps");

static __always_inline struct write_log *write_log_of(u64 sk)
{
	u32 at = (u32)(sk >> 6) * 2654435761U >> 22; /* 10 bits: WRITE_SOCKETS */

	return bpf_map_lookup_elem(&write_logs, &at);
}

/*
 * Find the first write that contains a sequence number, or follows it: its index plus 1; 0: the write is not
 * complete, or no longer in the log. Global function: verified once.
 */
__noinline int find_write(u64 sk, u32 seq)
{
	struct write_log *log = write_log_of(sk);
	u64 first = ~0ULL;
	u32 found = 0;

	if (!log || log->sk != sk)
		return 0;
	for (u32 i = 0; i < WRITES; i++) {
		const struct write *each = &log->writes[i];

		if (i >= log->count || (s32)(each->behind - seq) <= 0 || each->ts_ns >= first)
			continue;
		first = each->ts_ns;
		found = i + 1;
		barrier_var(first); /* opaque to the verifier: one path, not one per value */
		barrier_var(found);
	}
	return found;
}

/* Less than a segment within the windows waits for an ACK; other data waits for a window or its pacing time. */
static __always_inline u32 held_by(struct tcp_sock *tp, u32 unsent)
{
	u32 room = READ(tp, snd_una) + READ(tp, snd_wnd) - READ(tp, snd_nxt);
	u32 out = READ(tp, packets_out);

	if (unsent < READ(tp, mss_cache) && out && out < READ(tp, snd_cwnd) && unsent <= room)
		return STAGE_NAGLE;
	return STAGE_WINDOW;
}

/*
 * Record a write. A write soon after the last one, relative to the oldest one's wait, extends the last one:
 * so a few slots suffice, and no wait is off by more than an eighth.
 */
static __always_inline void note_write(struct write_log *log, const struct write *write,
				       u32 snd_nxt)
{
	struct write *last = &log->writes[(log->count - 1) & (WRITES - 1)];
	u32 oldest = find_write(log->sk, snd_nxt);
	u64 since = oldest ? log->writes[(oldest - 1) & (WRITES - 1)].ts_ns : 0;

	if (oldest && last->ts_ns > since &&
	    (write->ts_ns - last->ts_ns) * 8 < write->ts_ns - since) {
		last->behind = write->behind;
		return;
	}
	log->writes[log->count & (WRITES - 1)] = *write;
	log->count++;
}

static __always_inline int on_written(struct sock *sk, int result)
{
	struct write_log *log;
	struct tcp_sock *tp;
	struct write write;
	u32 snd_nxt;
	u64 address;

	if (result <= 0 || !is_tcp(sk))
		return 0;
	tp = tcp_sock_of(sk);
	if (!tp)
		return 0;
	snd_nxt = READ(tp, snd_nxt);
	write.behind = READ(tp, write_seq);
	if (write.behind == snd_nxt)
		return 0;
	address = address_of(sk);
	log = write_log_of(address);
	if (!log)
		return 0;
	if (log->sk != address) {
		log->count = 0;
		log->sk = address;
	}
	write.ts_ns = bpf_ktime_get_ns();
	write.held = held_by(tp, write.behind - snd_nxt);
	note_write(log, &write, snd_nxt);
	return 0;
}

/* Add the stages of the send queue to a packet that TCP sends for the first time. */
static __always_inline void stages_of_queue(struct sk_buff *skb, struct in_flight_packet *in_flight)
{
	u64 address = address_of(READ(skb, sk));
	struct write_log *log = write_log_of(address);
	struct stage *stage;
	struct write write;
	u32 found;

	if (!log || log->sk != address || !in_flight->event.trace.payload ||
	    in_flight->event.trace.retransmitted)
		return;
	found = find_write(address, in_flight->event.trace.seq);
	if (!found)
		return;
	write = log->writes[(found - 1) & (WRITES - 1)];
	if (write.ts_ns >= in_flight->sent_ns)
		return;
	stage = add_stage(in_flight, STAGE_APP_WRITE, write.ts_ns);
	if (stage)
		stage->netns = in_flight->event.flow.netns;
	stage = add_stage(in_flight, write.held == STAGE_NAGLE ? STAGE_NAGLE : STAGE_WINDOW,
			  in_flight->sent_ns);
	if (stage)
		stage->netns = in_flight->event.flow.netns;
}

#endif
