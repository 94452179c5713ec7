/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Round-trip times. */
#ifndef CGNET_ABI_RTT_H
#define CGNET_ABI_RTT_H

#include "flow.h"
#include "owner.h"
#include "peer.h"
#include "record.h"

/* Measurement of the round-trip time. */
struct rtt_sample {
	__u32 rtt_us;  /* as measured */
	__u32 srtt_us; /* smoothed by the stack, after the measurement */
	__u8 tcp_state;
	__u8 role;	/* enum role; 0: open before the start */
	__u8 handshake; /* 1: measured in the handshake */
	__u8 pad[5];
};

struct rtt_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct rtt_sample sample;
	struct identity identity; /* none: open before the start, or restored */
};

struct rtt_config {
	__u64 min_ns;	     /* faster samples are skipped */
	__u32 no_handshakes; /* 1: skip those of handshakes */
	__u32 smoothed;	     /* 1: use the stack's smoothed time for each measured one */
};

_Static_assert(sizeof(struct rtt_sample) == 16, "struct rtt_sample");
_Static_assert(sizeof(struct rtt_event) == 128, "struct rtt_event");
_Static_assert(sizeof(struct rtt_config) == 16, "struct rtt_config");

#endif
