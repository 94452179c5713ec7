/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Interface between the kernel and user space.
 *
 * clang compiles this file into the BPF objects and tools/gen_layouts.py reads it with pycparser to write
 * src/cgnet/records/_layouts.py. Allowed members: fixed-width integers, char arrays, arrays of __u8 and of
 * structs, and structs by value. Padding is always explicit, so that no byte of a record is left unwritten
 * and user space may compare and cache raw bytes.
 */
#ifndef CGNET_ABI_EVENTS_H
#define CGNET_ABI_EVENTS_H

#include "settings.h"
#include "sockets.h"

#define CGNET_PATH_LEN 1024
#define CGNET_FRAMES 24
#define CGNET_STAGES 24

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
	LOST_WHERE_COUNT = 8,
};

struct head {
	__u32 kind; /* enum record_kind */
	__u32 pad;
	__u64 ts_ns; /* CLOCK_MONOTONIC */
};

/* With the ring's header of 8 bytes it fills two 64-byte cache lines. */
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

struct socket_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct open_socket socket;
};

/* Only the stages in use are sent. */
struct trace_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct packet_trace trace;
	struct stage stages[CGNET_STAGES];
};

/* Packet in flight: user space reads those that have no further events. */
struct in_flight_packet {
	struct trace_event event;
	struct holder receiver;
	__u8 hook;    /* enum stage_at: current netfilter hook; 0: none */
	__u8 unnamed; /* 1: started by a program that cannot determine its owner */
	__u8 pad[2];
	__u32 hook_netns;
	__u64 sent_ns;	     /* time stamp by TCP, or by its receiver */
	__u32 wanted_sender; /* 1: the sender passes the filters */
	__u32 waits;	     /* bits: 1: waits for the application to read it; 2: evicted */
};

/* Cgroup that was created, removed or renamed in a hierarchy in use. */
struct cgroup_event {
	struct head head;
	__u64 cgroup_id;
	__u32 hierarchy;
	__u32 marks; /* enum cgroup_marks, as in the filter's map */
	char path[CGNET_PATH_LEN];
};

_Static_assert(sizeof(struct head) == 16, "struct head");
_Static_assert(sizeof(struct connect_event) == 120, "struct connect_event");
_Static_assert(sizeof(struct rtt_event) == 120, "struct rtt_event");
_Static_assert(sizeof(struct life_event) == 184, "struct life_event");
_Static_assert(sizeof(struct drop_event) == 352, "struct drop_event");
_Static_assert(sizeof(struct socket_event) == 248, "struct socket_event");
_Static_assert(sizeof(struct trace_event) == 944, "struct trace_event");
_Static_assert(sizeof(struct in_flight_packet) == 1016, "struct in_flight_packet");
_Static_assert(sizeof(struct cgroup_event) == 1056, "struct cgroup_event");

#endif
