// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* For tests: writes one byte for each socket that has an entry in a socket storage map. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

struct bpf_iter_meta {
	void *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	void *map;
	struct sock *sk;
	void *value;
} __attribute__((preserve_access_index));

SEC("iter/bpf_sk_storage_map")
int count_storage(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	char one = '.';

	if (ctx->sk && ctx->value)
		bpf_seq_write(ctx->meta->seq, &one, 1);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
