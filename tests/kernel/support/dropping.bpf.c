// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Programs that drop packets, for the tests of `cgnet drop`. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

/* Of linux/bpf.h, up to what is used. */
struct __sk_buff {
	__u32 before[34];
	__u32 local_port;
};

SEC("cgroup_skb/ingress")
int refuse_port_9(struct __sk_buff *skb)
{
	return skb->local_port != 9;
}

SEC("xdp")
int refuse_all(void *ctx)
{
	return 1; /* XDP_DROP */
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
