/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Lives of connections. */
#ifndef CGNET_ABI_LIFE_H
#define CGNET_ABI_LIFE_H

#include "flow.h"
#include "owner.h"
#include "peer.h"
#include "record.h"

/* Side that ended a connection. */
enum closed_by {
	CLOSED_BY_LOCAL = 1,
	CLOSED_BY_PEER = 2,
	CLOSED_BY_KERNEL = 3,
};

enum close_cause {
	CLOSE_FIN = 1,
	CLOSE_RST = 2,
	CLOSE_TIMEOUT = 3,
	CLOSE_ABORT = 4, /* killed from outside, as by `ss -K` */
};

/* Connection at its end, or at present. */
struct life {
	__u64 duration_ns;   /* since it was established; 0: before the start */
	__u64 handshake_ns;  /* 0: unknown */
	__u64 tx_bytes;	     /* payload, acknowledged */
	__u64 rx_bytes;	     /* payload, received in order */
	__u64 delivery_rate; /* bytes per second; 0: never measured */
	__u32 tx_segs;
	__u32 rx_segs;
	__u32 retrans;
	__u32 srtt_us;	     /* 0: never measured */
	__u32 min_rtt_us;    /* ~0: never measured */
	__u32 busy_ticks;    /* of the kernel, with data to send and not limited; ~0: unknown */
	__u32 rwnd_ticks;    /* limited by the peer's receive window */
	__u32 sndbuf_ticks;  /* limited by the send buffer */
	__u32 dsack_dups;    /* ~0: unknown */
	__u16 rst_reason;    /* enum sk_rst_reason, plus 1; 0: unknown */
	__u8 tcp_state;	     /* last one before the end */
	__u8 role;	     /* enum role; 0: open before the start */
	__u8 closed_by;	     /* enum closed_by; 0: it is open */
	__u8 close_cause;    /* enum close_cause */
	__u16 reordering;    /* segments; 65535: as many or more */
	__u32 retrans_delta; /* deltas since the connection's last record */
	__u64 tx_bytes_delta;
	__u64 rx_bytes_delta;
	/* A server's turns: from the last byte of a request to the first byte of the answer. */
	__u32 turns; /* 0: none, or nobody asked */
	__u32 mean_turn_us;
	__u32 least_turn_us;
	__u32 greatest_turn_us;
};

struct life_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct life life;
	struct identity identity; /* none: open before the start, or restored */
};

struct life_config {
	__u64 min_ns; /* shorter lives are skipped */
	__u64 min_bytes;
	__u32 by_closed; /* enum closed_by, as bits; 0: any */
	__u32 by_cause;	 /* enum close_cause, as bits; 0: any */
};

_Static_assert(sizeof(struct life) == 120, "struct life");
_Static_assert(sizeof(struct life_event) == 232, "struct life_event");
_Static_assert(sizeof(struct life_config) == 24, "struct life_config");

#endif
