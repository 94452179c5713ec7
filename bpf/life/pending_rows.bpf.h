/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Pending records of connections that we reset: the kernel reports the reason after their end. */
#ifndef CGNET_LIFE_PENDING_ROWS_BPF_H
#define CGNET_LIFE_PENDING_ROWS_BPF_H

#include "life/private.bpf.h"
#include "life/emit.bpf.h"

/* Number of records that wait for the reason of a reset: mostly 0, and then no lookup is necessary. */
TYPED_ONLY u32 rows_waiting;

struct waiting_row {
	struct owner owner;
	struct flow flow;
	struct life life;
	struct identity identity;
	u64 told; /* 1: a program is reporting it */
};

/* Pending records, by the socket's address. */
TYPED_ONLY struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct waiting_row);
} waiting_rows SEC(".maps");

/* Report a pending record, with a reason or without. */
static __always_inline void end_waiting(struct sock *sk, u32 rst_reason)
{
	struct waiting_row *row;
	u64 address;

	if (!rows_waiting)
		return;
	address = object_address(sk);
	row = bpf_map_lookup_elem(&waiting_rows, &address);
	if (!row || __sync_lock_test_and_set(&row->told, 1))
		return;
	if (rst_reason)
		row->life.rst_reason = rst_reason;
	emit_life(bpf_ktime_get_ns(), &row->owner, &row->flow, &row->life, &row->identity);
	bpf_map_delete_elem(&waiting_rows, &address);
	__sync_fetch_and_add(&rows_waiting, -1);
}

/*
 * Whether a record can wait for the reason of our reset, which is sent after the end. The caller leaves the
 * owner out of the record: there is little room on the stack.
 */
static __always_inline bool can_wait(struct sock *sk, const struct owner *owner,
				     struct waiting_row *row)
{
	u64 address;

	if (!tells_rst_reason() || row->life.closed_by != CLOSED_BY_LOCAL ||
	    row->life.close_cause != CLOSE_RST)
		return false;
	address = object_address(sk);
	row->owner = *owner;
	if (!address || bpf_map_update_elem(&waiting_rows, &address, row, BPF_NOEXIST))
		return false;
	__sync_fetch_and_add(&rows_waiting, 1);
	return true;
}

#endif
