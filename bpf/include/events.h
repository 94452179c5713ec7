/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Everything that crosses between the kernel and user space.
 *
 * clang compiles this file into the BPF objects and tools/gen_layouts.py reads it with pycparser to
 * write src/cgnet/_layouts.py. Allowed members: fixed-width integers, char arrays, arrays of __u8
 * and of structs, and structs by value. Padding is always spelled out, so that no byte of a record
 * is left unwritten and user space may compare and cache raw bytes.
 */
#ifndef CGNET_EVENTS_H
#define CGNET_EVENTS_H

#define CGNET_COMM_LEN 16
#define CGNET_PATH_LEN 1024
#define CGNET_HIERARCHIES 4

/* The first member of every record tells what it is. */
enum record_kind {
	RECORD_CONNECT = 1,
	RECORD_CGROUP_BORN = 2,
	RECORD_CGROUP_GONE = 3,
};

/* What the kernel side could not emit or store: indices of the map `lost`. */
enum lost_where {
	LOST_RING = 0,
	LOST_LEDGER = 1,
	LOST_SELECTED_CGROUPS = 2,
	LOST_CGROUP_NAMES = 3,
	LOST_CONNECT_CALLS = 4,
	LOST_WHERE_COUNT = 5,
};

/* Which step of the ledger knew the owner. */
enum owner_source {
	OWNER_UNKNOWN = 0,
	OWNER_LEARNED = 1,
};

/* How an attempt ended, where errno has no name for it. Other values are errnos; 0 is success. */
enum attempt_result {
	RESULT_OK = 0,
	RESULT_ABORTED = -1,
};

/* What sees errors of connect() that come back before a SYN leaves. */
enum sync_errors {
	SYNC_ERRORS_UNSEEN = 0,
	SYNC_ERRORS_BY_FUNCTION = 1, /* the return of tcp_v4_connect and tcp_v6_connect */
	SYNC_ERRORS_BY_SYSCALL = 2,  /* the return of the system call */
};

/* A cgroup controller of v1, or the one hierarchy of v2. */
enum cgroup_controller {
	CONTROLLER_V2 = 0,
	CONTROLLER_CPUSET = 1,
	CONTROLLER_CPU = 2,
	CONTROLLER_CPUACCT = 3,
	CONTROLLER_BLKIO = 4,
	CONTROLLER_MEMORY = 5,
	CONTROLLER_DEVICES = 6,
	CONTROLLER_FREEZER = 7,
	CONTROLLER_NET_CLS = 8,
	CONTROLLER_PERF_EVENT = 9,
	CONTROLLER_NET_PRIO = 10,
	CONTROLLER_HUGETLB = 11,
	CONTROLLER_PIDS = 12,
	CONTROLLER_RDMA = 13,
	CONTROLLER_MISC = 14,
};

struct head {
	__u32 kind; /* enum record_kind */
	__u32 pad;
	__u64 ts_ns; /* CLOCK_MONOTONIC */
};

/* Who uses a socket. Ids of pid and uid are those of the initial namespaces. */
struct owner {
	__u64 cgroup_id; /* in the hierarchy below; 0 when unknown */
	__u32 hierarchy; /* the kernel's hierarchy id */
	__u32 source;	 /* enum owner_source */
	__u32 pid;	 /* thread group id; 0 when unknown */
	__u32 uid;
	char comm[CGNET_COMM_LEN];
};

/*
 * Addresses in network byte order, IPv4 in the first four bytes; ports in host byte order. All that
 * two connections of a client to a service have in common comes before the local port.
 */
struct flow {
	__u8 saddr[16];
	__u8 daddr[16];
	__u32 netns; /* inode */
	__u16 dport;
	__u8 family; /* 4 or 6 */
	__u8 mapped; /* 1: IPv4 on an IPv6 socket */
	__u16 sport;
	__u8 pad[6];
};

struct outcome {
	__u64 latency_ns; /* 0: it failed before a SYN could leave */
	__u32 syn_retrans;
	__s16 result;	/* errno, or enum attempt_result */
	__u8 tcp_state; /* the last state that the attempt reached */
	__u8 pad;
};

/* With the ring's header of 8 bytes it fills two lines of a 64-byte cache. */
struct connect_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct outcome outcome;
};

/* A cgroup was made or removed in a hierarchy that is looked at. */
struct cgroup_event {
	struct head head;
	__u64 cgroup_id;
	__u32 hierarchy;
	__u32 selected; /* 1: the filter's set holds it */
	char path[CGNET_PATH_LEN];
};

struct cgroup_key {
	__u64 id;
	__u32 hierarchy;
	__u32 pad;
};

struct hierarchy {
	__u32 id;	  /* the kernel's hierarchy id; 0 is v2 */
	__u32 controller; /* enum cgroup_controller */
};

/* Read-only for the programs, set before they are loaded. */
struct config {
	__u32 hierarchies; /* used entries of the array; the first one names owners */
	__u32 by_cgroup;   /* 1: only owners in the map selected_cgroups */
	__u32 by_pid;	   /* 1: only owners in the map selected_pids */
	__u32 sync_errors; /* enum sync_errors */
	struct hierarchy hierarchy[CGNET_HIERARCHIES];
};

_Static_assert(sizeof(struct head) == 16, "struct head");
_Static_assert(sizeof(struct owner) == 40, "struct owner");
_Static_assert(sizeof(struct flow) == 48, "struct flow");
_Static_assert(sizeof(struct outcome) == 16, "struct outcome");
_Static_assert(sizeof(struct connect_event) == 120, "struct connect_event");
_Static_assert(sizeof(struct cgroup_event) == 1056, "struct cgroup_event");
_Static_assert(sizeof(struct cgroup_key) == 16, "struct cgroup_key");
_Static_assert(sizeof(struct config) == 48, "struct config");

#endif
