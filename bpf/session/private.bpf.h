/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What all signals keep of a socket, in one entry of the ledger: include it first. */
#ifndef CGNET_SESSION_PRIVATE_BPF_H
#define CGNET_SESSION_PRIVATE_BPF_H

#ifndef IN_SESSION
#define IN_SESSION
#endif

#include "connect/attempt.bpf.h"
#include "life/private.bpf.h"
#include "rtt/private.bpf.h"
#include "sums/private.bpf.h"

#define KEEPS_ATTEMPTS

#endif
