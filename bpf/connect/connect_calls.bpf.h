/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Calls of connect(): what the programs at its functions or at the system call, which are in an object of
 * their own, and the programs at state changes tell each other.
 */
#ifndef CGNET_CONNECT_CONNECT_CALLS_BPF_H
#define CGNET_CONNECT_CONNECT_CALLS_BPF_H

#include "base/program.bpf.h"
#include "abi/connect.h"

CONFIG(connect_config);

struct connect_call {
	u64 sk;
	u64 address;	 /* struct sockaddr of the caller: user's or the kernel's copy */
	u64 reached_tcp; /* 1: the call reached TCP_SYN_SENT, and the attempt has its own record */
};

/* Calls in progress, by thread. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct connect_call);
} connect_calls SEC(".maps");

/* ICMP error that a socket had when connect() returned. */
struct soft_error {
	u64 ts_ns;
	u64 error; /* errno */
};

/* By the socket's address. An entry stays until another one takes its place: its time tells whose it is. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct soft_error);
} soft_errors SEC(".maps");

/* The attempt reached TCP: its own decision reports it. */
static __always_inline void connect_call_reached_tcp(void)
{
	struct connect_call *call;
	u64 thread;

	if (connect_config.sync_errors == SYNC_ERRORS_UNSEEN)
		return;
	thread = bpf_get_current_pid_tgid();
	call = bpf_map_lookup_elem(&connect_calls, &thread);
	if (call)
		call->reached_tcp = 1;
}

/* errno of the ICMP error that an attempt's connect() returned with; 0: none. */
static __always_inline u32 soft_error_since(struct sock *sk, u64 start_ns)
{
	struct soft_error *found;
	u64 key = (u64)sk;

	if (connect_config.sync_errors == SYNC_ERRORS_UNSEEN)
		return 0;
	found = bpf_map_lookup_elem(&soft_errors, &key);
	return found && found->ts_ns >= start_ns ? found->error : 0;
}

#endif
