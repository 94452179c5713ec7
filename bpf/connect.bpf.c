// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Outbound TCP connection attempts, and their outcomes.
 *
 * An attempt starts when a socket enters TCP_SYN_SENT, in the context of the process that connects. It is
 * decided when the socket leaves TCP_SYN_SENT, or the TCP_SYN_RECV of a simultaneous open, mostly in softirq.
 * One decision ends the attempt, so that no attempt gives two records.
 */

/* The ledger is for listeners only, and has no state of this object. */
#define HAS_LEDGER_PRIVATE
struct ledger_private {};
#define SEEDED_STATES (1 << TCP_LISTEN)

#include "connect/outbound.bpf.h"
#include "connect/inbound.bpf.h"
#include "filter/cgroup_events.bpf.h"

SET_STATE_PROGRAMS(server, accept_on_state)
SET_STATE_PROGRAMS(client, connect_on_state)

/*
 * The tracepoint exists since Linux kernel commit e6a3e4434000 "net: sock: add trace for socket errors" (in
 * v5.14); without it, the program is left out.
 */
TRACEPOINT_PROGRAM(trace_error, inet_sk_error_report, WITH(struct sock *sk), connect_on_error(sk))

char LICENSE[] SEC("license") = "Dual BSD/GPL";
