/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The way to user space: a ring buffer, and a count of what did not fit anywhere. */
#ifndef CGNET_TRANSPORT_BPF_H
#define CGNET_TRANSPORT_BPF_H

#include "hook.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 * 1024 * 1024);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOST_WHERE_COUNT);
	__type(key, u32);
	__type(value, u64);
} lost SEC(".maps");

static __always_inline void count_lost(u32 where)
{
	u64 *count = bpf_map_lookup_elem(&lost, &where);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Room for a record, its head filled; NULL when there is none, counted as lost at `where`. */
static __always_inline void *reserve(u32 size, u32 kind, u64 ts_ns, u32 where)
{
	struct head *head = bpf_ringbuf_reserve(&ring, size, 0);

	if (unlikely(!head)) {
		count_lost(where);
		return NULL;
	}
	head->kind = kind;
	head->pad = 0;
	head->ts_ns = ts_ns;
	return head;
}

/*
 * The reader looks at the ring by its own clock, 20 times a second. Waking it would cost the sender an
 * interrupt and the host a context switch for each record.
 */
static __always_inline void submit(void *record)
{
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

#endif
