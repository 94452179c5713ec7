// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Round-trip times as the stack tells them itself, one by one: of the sockets of a cgroup, from being established.
 * callback.py reads them.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

/* linux/bpf.h, whose includes clang doesn't find for this target. */
#define ACTIVE_ESTABLISHED 4
#define PASSIVE_ESTABLISHED 5
#define MEASURED 12
#define TELL_MEASURED 8

/* The beginning of struct bpf_sock_ops, which is fixed. */
struct bpf_sock_ops {
	u32 op;
	u32 args[4]; /* of MEASURED: the time, and the smoothed one, since v6.10 */
	u32 family;
	u32 remote_ip4;
	u32 local_ip4;
	u32 remote_ip6[4];
	u32 local_ip6[4];
	u32 remote_port; /* network byte order */
	u32 local_port;
};

struct measured {
	u32 local_port;
	u32 remote_port;
	u32 rtt_us;
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct measured);
	__type(value, u64);
} measured SEC(".maps");

SEC("sockops")
int callback(struct bpf_sock_ops *ops)
{
	struct measured key = {};
	u64 one = 1, *found;

	if (ops->op == ACTIVE_ESTABLISHED || ops->op == PASSIVE_ESTABLISHED) {
		bpf_sock_ops_cb_flags_set(ops, TELL_MEASURED);
		return 1;
	}
	if (ops->op != MEASURED)
		return 1;
	key.local_port = ops->local_port;
	key.remote_port = bpf_ntohl(ops->remote_port);
	key.rtt_us = ops->args[0];
	found = bpf_map_lookup_elem(&measured, &key);
	if (found)
		__sync_fetch_and_add(found, 1);
	else
		bpf_map_update_elem(&measured, &key, &one, BPF_ANY);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
