// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What it costs to be called at all: empty programs on the hooks of `cgnet connect` and `drop`. The first program on
 * a hook also pays for cold caches; `first_*` is attached before cgnet's, so that it and `empty_*`,
 * which comes after, meet the same conditions.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define EMPTY(name, hook)   \
	SEC(hook)           \
	int name(void *ctx) \
	{                   \
		return 0;   \
	}

EMPTY(first_typed, "tp_btf/inet_sock_set_state")
EMPTY(empty_typed, "tp_btf/inet_sock_set_state")
EMPTY(first_raw, "raw_tp/inet_sock_set_state")
EMPTY(empty_raw, "raw_tp/inet_sock_set_state")
EMPTY(drop_first_typed, "tp_btf/kfree_skb")
EMPTY(drop_empty_typed, "tp_btf/kfree_skb")
EMPTY(drop_first_raw, "raw_tp/kfree_skb")
EMPTY(drop_empty_raw, "raw_tp/kfree_skb")
EMPTY(probe_first_typed, "tp_btf/tcp_probe")
EMPTY(probe_empty_typed, "tp_btf/tcp_probe")
EMPTY(probe_first_raw, "raw_tp/tcp_probe")
EMPTY(probe_empty_raw, "raw_tp/tcp_probe")
EMPTY(read_first_typed, "tp_btf/tcp_rcv_space_adjust")
EMPTY(read_first_raw, "raw_tp/tcp_rcv_space_adjust")
EMPTY(queued_typed, "tp_btf/net_dev_queue")
EMPTY(queued_raw, "raw_tp/net_dev_queue")

char LICENSE[] SEC("license") = "Dual BSD/GPL";
