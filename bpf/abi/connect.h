/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Connection attempts. */
#ifndef CGNET_ABI_CONNECT_H
#define CGNET_ABI_CONNECT_H

#include "flow.h"
#include "owner.h"
#include "peer.h"
#include "record.h"

/* Results of an attempt that have no errno. Other values are errnos; 0 is success. */
enum attempt_result {
	RESULT_OK = 0,
	RESULT_ABORTED = -1,
};

struct outcome {
	__u64 latency_ns; /* 0: it failed before a SYN could be sent */
	__u32 syn_retrans;
	__s16 result;	/* errno, or enum attempt_result */
	__u8 tcp_state; /* last state that the attempt reached */
	__u8 role;	/* enum role */
};

struct connect_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct outcome outcome;
	struct identity identity; /* none unless it was established */
};

/* Hook for errors of connect() that return before a SYN is sent. */
enum sync_errors {
	SYNC_ERRORS_UNSEEN = 0,
	SYNC_ERRORS_BY_FUNCTION = 1, /* return of tcp_v4_connect and tcp_v6_connect */
	SYNC_ERRORS_BY_SYSCALL = 2,  /* return of the system call */
};

struct connect_config {
	__u64 min_ns;	   /* faster attempts are skipped */
	__u32 sync_errors; /* enum sync_errors */
	__u32 pad;
};

_Static_assert(sizeof(struct outcome) == 16, "struct outcome");
_Static_assert(sizeof(struct connect_event) == 128, "struct connect_event");
_Static_assert(sizeof(struct connect_config) == 16, "struct connect_config");

#endif
