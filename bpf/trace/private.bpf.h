/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* State of a socket that `cgnet trace` alone keeps, in its entry of the ledger: include it before the ledger. */
#ifndef CGNET_TRACE_PRIVATE_BPF_H
#define CGNET_TRACE_PRIVATE_BPF_H

#include "base/program.bpf.h"

#define HAS_LEDGER_PRIVATE

/* Numbers of the packets that wait for the socket's application: the first, and one past the last. */
struct ledger_private {
	u32 first;
	u32 behind;
	u64 read_ns; /* server: when it read a request; 0: answered */
};

#endif
