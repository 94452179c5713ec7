/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a connection's life keeps of a socket, in its entry of the ledger: include it before the ledger. */
#ifndef CGNET_LIFE_PRIVATE_BPF_H
#define CGNET_LIFE_PRIVATE_BPF_H

#include "base/program.bpf.h"

#define KEEPS_LIVES

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
};

#endif
