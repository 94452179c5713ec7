/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sessions: several signals over one ledger, and their sums by owner. */
#ifndef CGNET_ABI_SESSION_H
#define CGNET_ABI_SESSION_H

#include "count.h"

enum session_signal {
	SIGNAL_CONNECT = 1,
	SIGNAL_ACCEPT = 2,
	SIGNAL_RTT = 4,
	SIGNAL_LIFE = 8,
	SIGNAL_DROP = 16,
	SIGNAL_RETRANS = 32,
	SIGNAL_QUEUES = 64,
	SIGNAL_TURNS = 128, /* of lives */
};

/* Rings: one for each kind of record, so that a flood of one kind takes no room of another. */
enum ring_number {
	RING_EVENTS = 0,   /* changes of cgroups, both ends of connections, errors before a SYN */
	RING_CONNECTS = 1, /* established, or accepted */
	RING_FAILURES = 2, /* attempts that failed */
	RING_SAMPLES = 3,
	RING_LIVES = 4,
	RING_DROPS = 5,
	RING_RESENDS = 6,
	RING_COUNT = 7,
};

struct session_config {
	__u32 rows; /* enum session_signal, as bits: signals whose events are told one by one */
	__u32 sums; /* likewise: signals that are summed up by owner */
	__u32 everybody; /* likewise: signals that no filter on owners and flows applies to; SIGNAL_DROP alone */
	__u32 pad;
};

#define CGNET_OTHER_OWNERS 9223372036854775807 /* stands for a cgroup: owners beyond the limit */
#define CGNET_CLOSE_CAUSES 5		       /* enum close_cause */
#define CGNET_RESEND_CAUSES 7		       /* enum retrans_cause */
#define CGNET_DROP_CLASSES 7		       /* enum drop_class */

/* Values in microseconds. Of one interval: 32 bits are enough. */
struct sums_histogram {
	__u64 sum;
	__u32 count;
	__u32 least;
	__u32 greatest;
	__u32 pad;
	__u32 buckets[CGNET_BUCKETS]; /* bounds: bucket_starts in struct count_config */
};

/* What an owner's connections did since the table was last read. */
struct owner_sums {
	__u64 established; /* attempts that succeeded */
	__u64 accepts;
	__u64 tx_bytes; /* payload, acknowledged */
	__u64 rx_bytes; /* payload, received in order */
	__u64 tx_segs;
	__u64 rx_segs;
	__u64 busy_ticks; /* of the kernel, with data to send and not limited */
	__u64 rwnd_ticks;
	__u64 sndbuf_ticks;
	__u64 turns; /* of servers: see life/turns.bpf.h */
	__u64 turns_us;
	__u32 greatest_turn_us;
	__u32 pad;
	__u64 closes[CGNET_CLOSE_CAUSES];
	__u64 resends[CGNET_RESEND_CAUSES]; /* segments */
	__u64 drops[CGNET_DROP_CLASSES];
	/* Of the listener whose accept queue is the fullest, when it was looked at. */
	__u32 queue;
	__u32 queue_limit;
	__u64 queue_drops;	       /* since it listens */
	struct sums_histogram latency; /* of attempts that succeeded */
	struct sums_histogram rtt;
};

enum sum_kind {
	SUM_FAILURES = 1, /* attempts; number: errno, or enum attempt_result */
	SUM_DROPS = 2,	  /* number: reason */
};

/* Key of counts by an open set of numbers. */
struct sum_key {
	__u64 cgroup_id;
	__u32 kind; /* enum sum_kind */
	__u32 number;
};

_Static_assert(sizeof(struct sums_histogram) == 1048, "struct sums_histogram");
_Static_assert(sizeof(struct owner_sums) == 2360, "struct owner_sums");
_Static_assert(sizeof(struct session_config) == 16, "struct session_config");

#endif
