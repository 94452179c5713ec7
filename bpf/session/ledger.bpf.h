/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The ledger of a session, with what signals do when it changes. */
#ifndef CGNET_SESSION_LEDGER_BPF_H
#define CGNET_SESSION_LEDGER_BPF_H

#include "session/private.bpf.h"
#include "life/pending_rows.bpf.h"

#define ON_END_OF_SOCKET(sk) end_waiting(sk, 0) /* last chance to report it */
#include "owner/all_sockets.bpf.h"

#endif
