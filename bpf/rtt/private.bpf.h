/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What round-trip times keep of a socket, in its entry of the ledger: include it before the ledger. */
#ifndef CGNET_RTT_PRIVATE_BPF_H
#define CGNET_RTT_PRIVATE_BPF_H

#include "base/program.bpf.h"

#define KEEPS_RTTS

/* The stack's values when a socket was last examined. */
struct rtt_private {
	u64 acked_at; /* send time of the last acknowledged segment, by TCP's clock */
	u32 srtt;     /* times 8, as the stack keeps it */
	u32 mdev;
	u32 retrans;
	u32 looked; /* 0: never */
};

#endif
