/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Records: kinds, head, and causes of loss.
 *
 * The headers of this folder are the interface between the kernel and user space, one for each subject. clang
 * compiles them into the BPF objects, and tools/gen_layouts.py reads them with pycparser to write
 * src/cgnet/records/_layouts.py. Allowed members: fixed-width integers, char arrays, arrays of __u8 and of
 * structs, and structs by value. Padding is always explicit, so that no byte of a record is left unwritten
 * and user space may compare and cache raw bytes.
 *
 * A struct NAME_config is a subject's constants: set before the programs are loaded, read-only for them. A
 * member that user space does not set is 0.
 */
#ifndef CGNET_ABI_RECORD_H
#define CGNET_ABI_RECORD_H

/* Kind of a record, in its first member. */
enum record_kind {
	RECORD_CONNECT = 1,
	RECORD_CGROUP_CREATED = 2,
	RECORD_CGROUP_REMOVED = 3,
	RECORD_RTT = 4,
	RECORD_LIFE = 5,
	RECORD_DROP = 6,
	RECORD_TRACE = 7,
	RECORD_CGROUP_RENAMED = 8,
	RECORD_SOCKET = 9,
	RECORD_RETRANS = 10,
	RECORD_PAIR = 11,
};

/* Data that the kernel side could not emit or store: indices of the map `lost`. */
enum lost_where {
	LOST_RING = 0,
	LOST_LEDGER = 1,
	LOST_SELECTED_CGROUPS = 2,
	LOST_CGROUP_NAMES = 3,
	LOST_CONNECT_CALLS = 4,
	LOST_COUNTS = 5,
	LOST_PACKETS = 6,
	LOST_ENDS = 7,
	LOST_PEERS = 8,
	LOST_WHERE_COUNT = 9,
};

struct head {
	__u32 kind; /* enum record_kind */
	__u32 pad;
	__u64 ts_ns; /* CLOCK_MONOTONIC */
};

_Static_assert(sizeof(struct head) == 16, "struct head");

#endif
