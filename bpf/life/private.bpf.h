/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a connection's life keeps of a socket, in its entry of the ledger: include it before the ledger. */
#ifndef CGNET_LIFE_PRIVATE_BPF_H
#define CGNET_LIFE_PRIVATE_BPF_H

#include "base/program.bpf.h"

#define KEEPS_LIVES

/* A server's turns: from the last byte of a request to the first byte of the answer. See life/turns.bpf.h. */
struct turns {
	u64 request_us; /* when the request's last segment came; 0: no request waits for an answer */
	u32 sent;	/* number of the next byte to send, at that time */
	u32 speaks_first; /* 1: it sends before it gets anything, and has no turns */
	u64 sum_us;
	struct {
		u32 count;
		u32 mean_us;
		u32 least_us;
		u32 greatest_us;
	} told; /* as struct life has them, in this order: one copy takes less of the stack */
};

struct life_private {
	u64 begun_ns;	    /* time of the client's SYN; 0: not seen */
	u64 established_ns; /* 0: not seen */
	u64 handshake_ns;
	u64 told_tx_bytes; /* in its last record, while it is open */
	u64 told_rx_bytes;
	u32 told_retrans;
	u16 rst_reason;
	u8 reset_received;    /* enum reset_received */
	u8 ended;	      /* 1: its record was made */
	u32 data_segs_at_fin; /* received, when our FIN was sent */
	u32 bytes_at_fin;
	u32 shown; /* iterator run in which its record was made: several files may share a socket */
	struct turns turns;
};

#endif
