/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Everything that crosses between the kernel and user space.
 *
 * clang compiles this file into the BPF objects and tools/gen_layouts.py reads it with pycparser to
 * write src/cgnet/records/_layouts.py. Allowed members: fixed-width integers, char arrays, arrays of __u8
 * and of structs, and structs by value. Padding is always spelled out, so that no byte of a record
 * is left unwritten and user space may compare and cache raw bytes.
 */
#ifndef CGNET_ABI_EVENTS_H
#define CGNET_ABI_EVENTS_H

#include "settings.h"

#define CGNET_PATH_LEN 1024
#define CGNET_FRAMES 24
#define CGNET_STAGES 24

/* The first member of every record tells what it is. */
enum record_kind {
	RECORD_CONNECT = 1,
	RECORD_CGROUP_CREATED = 2,
	RECORD_CGROUP_REMOVED = 3,
	RECORD_RTT = 4,
	RECORD_LIFE = 5,
	RECORD_DROP = 6,
	RECORD_TRACE = 7,
	RECORD_CGROUP_RENAMED = 8,
};

/* What the kernel side could not emit or store: indices of the map `lost`. */
enum lost_where {
	LOST_RING = 0,
	LOST_LEDGER = 1,
	LOST_SELECTED_CGROUPS = 2,
	LOST_CGROUP_NAMES = 3,
	LOST_CONNECT_CALLS = 4,
	LOST_COUNTS = 5,
	LOST_PACKETS = 6,
	LOST_ENDS = 7,
	LOST_WHERE_COUNT = 8,
};

struct head {
	__u32 kind; /* enum record_kind */
	__u32 pad;
	__u64 ts_ns; /* CLOCK_MONOTONIC */
};

/* With the ring's header of 8 bytes it fills two lines of a 64-byte cache. */
struct connect_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct outcome outcome;
};

struct rtt_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct rtt_sample sample;
};

struct life_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct life life;
};

struct drop_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct drop drop;
	__u64 stack[CGNET_FRAMES]; /* innermost first */
};

/* Only the stages that are used are sent. */
struct trace_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct packet_trace trace;
	struct stage stages[CGNET_STAGES];
};

/* A packet that is on its way: user space reads those that nothing more was heard of. */
struct in_flight_packet {
	struct trace_event event;
	struct holder receiver;
	__u8 hook;    /* enum stage_at: the hook of netfilter that it is in; 0: none */
	__u8 unnamed; /* 1: a program began it that can't tell its owner */
	__u8 pad[2];
	__u32 hook_netns;
	__u64 sent_ns;	     /* as TCP, or what received it, stamped it */
	__u32 wanted_sender; /* 1: the filters let the sender through */
	__u32 waits;	     /* bits: 1: for the application to read it; 2: given up */
};

/* A cgroup was made or removed in a hierarchy that is looked at. */
struct cgroup_event {
	struct head head;
	__u64 cgroup_id;
	__u32 hierarchy;
	__u32 marks; /* enum cgroup_marks, as the filter's set has them */
	char path[CGNET_PATH_LEN];
};

_Static_assert(sizeof(struct head) == 16, "struct head");
_Static_assert(sizeof(struct connect_event) == 120, "struct connect_event");
_Static_assert(sizeof(struct rtt_event) == 120, "struct rtt_event");
_Static_assert(sizeof(struct life_event) == 184, "struct life_event");
_Static_assert(sizeof(struct drop_event) == 352, "struct drop_event");
_Static_assert(sizeof(struct trace_event) == 944, "struct trace_event");
_Static_assert(sizeof(struct in_flight_packet) == 1016, "struct journey");
_Static_assert(sizeof(struct cgroup_event) == 1056, "struct cgroup_event");

#endif
