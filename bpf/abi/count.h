/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counts and histograms by keys. */
#ifndef CGNET_ABI_COUNT_H
#define CGNET_ABI_COUNT_H

#include "flow.h"
#include "owner.h"

#define CGNET_BUCKETS 256    /* of a histogram; a power of two */
#define CGNET_STAGE_KINDS 31 /* STAGE_COUNT */
#define CGNET_SUMS_EACH 4    /* slots of a CPU for sums of stages; a power of two */

/* Parts of a count's key. */
enum count_by {
	BY_CGROUP = 1,
	BY_SELECTED = 2,
	BY_PID = 4,
	BY_COMM = 8,
	BY_UID = 16,
	BY_NETNS = 32,
	BY_SADDR = 64,
	BY_DADDR = 128,
	BY_SPORT = 256,
	BY_DPORT = 512,
	BY_ROLE = 1024,
	BY_RESULT = 2048,
	BY_REASON = 4096,
	BY_LOCATION = 8192,
	BY_STACK = 16384,
	BY_STAGE = 32768,
	BY_CAUSE = 65536,
	BY_DROPPED = 131072,
};

/* Key of a count: the requested parts, and zeros. */
struct count_key {
	struct owner owner;
	struct flow flow;
	__u32 role; /* enum role */
	__s32 result; /* errno, or enum attempt_result; of drops: the reason; of resends: enum retrans_cause */
	__u64 location; /* of drops; of resends: enum dropped_here */
};

/* Histogram of values; see bucket_starts in struct count_config. */
struct histogram {
	__u64 count;
	__u64 sum;
	__u64 min;
	__u64 max;
	__u64 buckets[CGNET_BUCKETS];
};

/* Head of the sums of a CPU; a histogram for each enum stage_at follows. */
struct sums_head {
	__u64 state; /* enum sums_state */
	struct count_key key;
};

enum sums_state {
	SUMS_FREE = 0,
	SUMS_BEGUN = 1, /* a program is writing the key */
	SUMS_OF_KEY = 2,
};

struct count_config {
	__u32 enabled;	  /* 1: count, and send no record of each event */
	__u32 by;	  /* enum count_by, as bits */
	__u32 saddr_bits; /* prefix length of counted addresses */
	__u32 daddr_bits;
	__u32 histogram; /* 1: counts have values, too */
	__u32 pad;
	__u64 bucket_starts
		[CGNET_BUCKETS]; /* least value of each bucket of a histogram but the first */
};

_Static_assert(sizeof(struct count_key) == 104, "struct count_key");
_Static_assert(sizeof(struct histogram) == 2080, "struct histogram");
_Static_assert(sizeof(struct sums_head) == 112, "struct sums_head");
_Static_assert(sizeof(struct count_config) == 2072, "struct count_config");

#endif
