/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Both ends of a connection. */
#ifndef CGNET_ABI_PEER_H
#define CGNET_ABI_PEER_H

#include "flow.h"
#include "owner.h"
#include "record.h"

/*
 * Identity of a connection, equal at both ends but for the order: the sequence numbers of the first byte that
 * either side sends. Whoever has them can forge segments: user space shows a keyed hash. Both 0: none.
 */
struct identity {
	__u32 local;
	__u32 remote;
};

#define CGNET_MAKING 16384 /* ends that wait for the other one */

/* Both ends of a connection, at the time the second one is established; or a new owner of one end, or its end. */
struct pair_event {
	struct head head;
	struct identity identity; /* none: the entry was evicted meanwhile */
	struct owner local;	  /* all zeros, as the other one: the connection ends here */
	struct owner remote;	  /* all zeros: a new owner of the local end */
};

/* End of the owner's connection that a packet belongs to. */
struct packet_end {
	struct identity identity; /* of the owner's socket */
	__u32 known;		  /* 1: that socket is known */
	__u32 is_source;	  /* 1: it sent the packet */
};

struct peer_config {
	__u32 follow; /* 1: report pairs */
	__u32 ends;   /* 1: also when they end */
};

_Static_assert(sizeof(struct identity) == 8, "struct identity");
_Static_assert(sizeof(struct packet_end) == 16, "struct packet_end");
_Static_assert(sizeof(struct pair_event) == 104, "struct pair_event");
_Static_assert(sizeof(struct peer_config) == 8, "struct peer_config");

#endif
