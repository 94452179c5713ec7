/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Per-packet signals of a session: drops and retransmissions. */
#ifndef CGNET_SESSION_PACKETS_BPF_H
#define CGNET_SESSION_PACKETS_BPF_H

#include "session/ledger.bpf.h"
#include "drop/drops.bpf.h"
#include "retrans/resends.bpf.h"

#endif
