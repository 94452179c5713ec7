/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What sums by owner keep of a socket, in its entry of the ledger: include it before the ledger. */
#ifndef CGNET_SUMS_PRIVATE_BPF_H
#define CGNET_SUMS_PRIVATE_BPF_H

#include "base/program.bpf.h"

#define KEEPS_SUMS

enum {
	SUMS_UNTOLD = 0,
	SUMS_TOLD = 1, /* values below are in the sums, or of before the start */
	SUMS_ENDED = 2,
};

struct sums_private {
	u64 state;
	u64 tx_bytes;
	u64 rx_bytes;
	u64 tx_segs;
	u64 rx_segs;
	u64 busy_ticks;
	u64 rwnd_ticks;
	u64 sndbuf_ticks;
};

#endif
