/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Segments that TCP sends again. */
#ifndef CGNET_ABI_RETRANS_H
#define CGNET_ABI_RETRANS_H

#include "flow.h"
#include "owner.h"
#include "peer.h"
#include "record.h"

#define CGNET_NO_FLIGHT 4294967295
#define CGNET_ERRNOS 256 /* counted separately; 0 is any other */

/* Why TCP sent a segment again. */
enum retrans_cause {
	RETRANS_TIMEOUT = 1,
	RETRANS_FAST = 2,
	RETRANS_SLOW_START = 3,
	RETRANS_TAIL_LOSS_PROBE = 4,
	RETRANS_SYN = 5,
	RETRANS_SYNACK = 6,
};

/* Whether this host dropped the segment when it was sent before, or the answer to it. */
enum dropped_here {
	DROPPED_UNKNOWN = 0,
	DROPPED_ELSEWHERE = 1,
	DROPPED_SEGMENT = 2,
	DROPPED_ANSWER = 3,
};

/* Why that is unknown. */
enum drop_unknown {
	UNKNOWN_BEFORE_START = 0, /* it was sent before when drops were not seen yet */
	UNKNOWN_NO_ROOM = 1,	  /* a drop that may have been its own found no room */
	UNKNOWN_AMBIGUOUS = 2,	  /* drops of several connections fit */
	UNKNOWN_HIDDEN = 3,	  /* a packet that may have carried it in a tunnel was dropped */
	UNKNOWN_ARRIVED = 4, /* a SYN that reached its host's TCP, whose queue may have been full */
	DROP_UNKNOWN_COUNT = 5,
};

/* Resent segment, and its socket when that left. */
struct retrans {
	__u64 drop_location; /* in the kernel's code */
	__u32 drop_reason;   /* as numbered by this kernel */
	__u32 seq;
	__u32 len;     /* payload */
	__u32 segs;    /* segments on the wire, which the kernel counts */
	__u32 attempt; /* 1: the first resend */
	/* A SYN-ACK, for which there is no connection yet, has none of these. */
	__u32 rto_us;	 /* 0: none */
	__u32 srtt_us;	 /* 0: never measured */
	__u32 cwnd;	 /* 0: none */
	__u32 ssthresh;	 /* 0: none yet */
	__u32 in_flight; /* CGNET_NO_FLIGHT: none */
	__u8 cause;	 /* enum retrans_cause */
	__u8 tcp_state;
	__u8 role;    /* enum role; 0: open before the start */
	__u8 dropped; /* enum dropped_here */
	__u8 pad[4];
};

/* What limits the knowledge of drops: times of CLOCK_MONOTONIC. */
struct drop_knowledge {
	__u64 since_ns;	 /* user space sets it once all programs are attached */
	__u64 hidden_ns; /* last drop of a packet that may have carried TCP in a tunnel */
	__u64 long_ns;	 /* last drop of a packet that spans too many blocks */
};

struct retrans_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct retrans retrans;
	struct identity identity; /* none: before the start, restored, or not established yet */
};

struct retrans_config {
	__u32 by_cause;	      /* enum retrans_cause, as bits; 0: any */
	__u32 tick_ns;	      /* of the kernel's timers */
	__u32 arguments;      /* of tcp_retransmit_skb: 2, 3 with the error */
	__u32 too_big_reason; /* reason of a drop by a router whose next link has a smaller MTU */
};

_Static_assert(sizeof(struct retrans) == 56, "struct retrans");
_Static_assert(sizeof(struct drop_knowledge) == 24, "struct drop_knowledge");
_Static_assert(sizeof(struct retrans_event) == 168, "struct retrans_event");
_Static_assert(sizeof(struct retrans_config) == 16, "struct retrans_config");

#endif
