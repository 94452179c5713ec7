/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Time at which a hole in a socket's data was filled. Data after a hole waits in TCP's out-of-order queue: no
 * application can read it until the missing data arrives. No tracepoint reports that; rcv_nxt shows it at the
 * next arrival.
 */
#ifndef CGNET_TRACE_HOLE_BPF_H
#define CGNET_TRACE_HOLE_BPF_H

#include "trace/in_flight.bpf.h"

#define HOLE_SOCKETS 1024 /* a power of two */
#define HOLE_FILLS 16	  /* likewise */

/* Arrival of in-order data while other data waited in the out-of-order queue. */
struct hole_fill {
	u64 ts_ns;
	u32 rcv_nxt; /* before this data was added */
	u32 cpu;
};

/* Log of a socket's last fills. TCP receives under the socket's lock: there is no concurrent writer. */
struct hole_log {
	u64 sk;
	u32 count;
	u32 behind; /* sequence number after the data of the last fill */
	struct hole_fill fills[HOLE_FILLS];
};

/* Direct-mapped table by the socket's address; on a collision the later socket takes the slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HOLE_SOCKETS);
	__type(key, u32);
	__type(value, struct hole_log);
} hole_logs SEC(".maps");

static __always_inline struct hole_log *hole_log_of(u64 sk)
{
	u32 at = (u32)(sk >> 6) * 2654435761U >> 22; /* 10 bits: HOLE_SOCKETS */

	return bpf_map_lookup_elem(&hole_logs, &at);
}

/* Global function: verified once. */
__noinline int note_fill(u64 sk, u32 rcv_nxt, u32 behind)
{
	struct hole_log *log = hole_log_of(sk);
	struct hole_fill *fill;

	if (!log)
		return 0;
	if (log->sk != sk) {
		log->sk = sk;
		log->count = 0;
	} else if (log->count && log->behind == rcv_nxt) {
		log->count--; /* the last one filled no hole: reuse its slot */
	}
	fill = &log->fills[log->count++ & (HOLE_FILLS - 1)];
	fill->ts_ns = bpf_ktime_get_ns();
	fill->rcv_nxt = rcv_nxt;
	fill->cpu = bpf_get_smp_processor_id();
	log->behind = behind;
	return 0;
}

/*
 * Find the fill of the hole before a sequence number that arrived at `since`: the last fill that came while
 * TCP still waited for a lower number. Return its index plus 1; 0: unknown, since another socket has the log
 * now, or the number came after the peer's FIN.
 */
__noinline int find_fill(u64 sk, u32 seq, u64 since)
{
	struct hole_log *log = hole_log_of(sk);
	u64 latest = since, found = 0;

	if (!log || log->sk != sk)
		return 0;
	for (u32 i = 0; i < HOLE_FILLS; i++) {
		const struct hole_fill *fill = &log->fills[i];
		u64 is_there = ((u64)i - log->count) >> 63, is_later = (latest - fill->ts_ns) >> 63;
		u64 is_before = ~((u64)(seq - fill->rcv_nxt) >> 31) & 1;
		u64 taken = -(is_there & is_later & is_before);

		/* No branch, which verifiers would explore both ways, 16 times. */
		barrier_var(taken);
		latest ^= (latest ^ fill->ts_ns) & taken;
		found ^= (found ^ (i + 1)) & taken;
	}
	return found;
}

#endif
