/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Signals of single packets in a session: what was dropped, and what was sent again. */
#ifndef CGNET_SESSION_PACKETS_BPF_H
#define CGNET_SESSION_PACKETS_BPF_H

#include "session/ledger.bpf.h"
#include "drop/drops.bpf.h"
#include "retrans/resends.bpf.h"

#endif
