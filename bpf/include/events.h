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
#define CGNET_RESULT_WORDS 4
#define CGNET_PORTS 65536

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
	LOST_COUNTS = 5,
	LOST_WHERE_COUNT = 6,
};

/* Which step of the ledger knew the owner. */
enum owner_source {
	OWNER_UNKNOWN = 0,
	OWNER_LEARNED = 1,
	OWNER_INHERITED = 2, /* an accepted connection has its listener's */
	OWNER_SEEDED = 3,    /* found among the files of the processes at the start */
};

/* Which side of a connection the owner is. */
enum role {
	ROLE_CLIENT = 1,
	ROLE_SERVER = 2,
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

/* Whether user space must look at the cgroup's path, which may match a pattern. */
enum undecided {
	UNDECIDED_NOT = 0,
	UNDECIDED_NEW = 1,	/* of a new cgroup: it is wanted if a pattern includes it */
	UNDECIDED_SELECTED = 2, /* wanted, unless a pattern excludes it */
	UNDECIDED_NAME = 4,	/* besides: wanted if its container's name is */
};

/* Who uses a socket. Ids of pid and uid are those of the initial namespaces. */
struct owner {
	__u64 cgroup_id; /* in the hierarchy below; 0 when unknown */
	__u32 hierarchy; /* the kernel's hierarchy id */
	__u8 source;	 /* enum owner_source */
	__u8 undecided;	 /* enum undecided */
	__u16 given;	 /* which --cgroup selected it, from 1; 0: none */
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
	__u8 role;	/* enum role */
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
	__u32 marks; /* enum cgroup_marks, as the filter's set has them */
	char path[CGNET_PATH_LEN];
};

struct cgroup_key {
	__u64 id;
	__u32 hierarchy;
	__u32 pad;
};

/* What the filter knows of a cgroup. A child is born with its parent's. */
enum cgroup_marks {
	CGROUP_SELECTED = 1, /* as enum filter_use */
	CGROUP_EXCLUDED = 2,
	CGROUP_UNDECIDED = 4, /* new: its path may match a pattern */
};

struct cgroup_mark {
	__u32 marks; /* enum cgroup_marks */
	__u32 given; /* which --cgroup selected it, from 1 */
};

struct hierarchy {
	__u32 id;	  /* the kernel's hierarchy id; 0 is v2 */
	__u32 controller; /* enum cgroup_controller */
};

/*
 * What a filter's values do, and what one value does. Who matches a value that excludes is out; where
 * some values include, who matches none of these is out, too.
 */
enum filter_use {
	FILTER_INCLUDES = 1,
	FILTER_EXCLUDES = 2,
};

/* Which part of a flow an address or a port is looked for in. */
enum flow_side {
	SIDE_SOURCE = 0,
	SIDE_DESTINATION = 1,
	SIDE_EITHER = 2,
	SIDE_COUNT = 3,
};

/* A namespace's inode is used again; its cookie isn't. */
struct netns_value {
	__u64 cookie; /* 0: any */
	__u32 use;    /* enum filter_use */
	__u32 pad;
};

/* Likewise a process and its start. */
struct pid_value {
	__u64 start; /* since the boot, in units of 10 ms as /proc tells */
	__u32 use;   /* enum filter_use */
	__u32 pad;
};

/* Where somebody listens, and who; in socket storage without the count. */
struct listener_key {
	__u32 netns; /* inode */
	__u16 port;
	__u16 pad;
	__u8 address[16]; /* IPv4 as mapped; zeros: any */
};

struct listening {
	struct owner owner;
	__u32 wanted; /* 1: the owner passes the filters */
	__u32 sockets;
};

/* A prefix of the map selected_addresses: list, family and address, most significant first. */
struct address_key {
	__u32 prefixlen; /* bits of the rest of the key */
	__u8 list;	 /* 2 * enum flow_side, and 1 more if it excludes */
	__u8 family;	 /* 4 or 6 */
	__u8 address[16];
	__u8 pad[2];
};

/* For each port two bits of each side, from bit 0: included, excluded. */
struct port_flags {
	__u8 flags[CGNET_PORTS];
};

/* Parts of a count's key. */
enum count_by {
	BY_CGROUP = 1,
	BY_SELECTED = 2,
	BY_PID = 4,
	BY_COMM = 8,
	BY_UID = 16,
	BY_NETNS = 32,
	BY_SADDR = 64,
	BY_DADDR = 128,
	BY_SPORT = 256,
	BY_DPORT = 512,
	BY_ROLE = 1024,
	BY_RESULT = 2048,
};

/* What is counted together: the parts that were asked for, and zeros. */
struct count_key {
	struct owner owner;
	struct flow flow;
	__u32 role;   /* enum role */
	__s32 result; /* errno, or enum attempt_result */
};

/* Read-only for the programs, set before they are loaded. */
struct config {
	__u32 hierarchies; /* used entries of the array; the first one names owners */
	__u32 sync_errors; /* enum sync_errors */
	__u32 roles;	   /* enum role, as bits: whose connections are shown */
	__u32 family;	   /* 4, 6, or 0 for both */
	__u32 by_cgroup;   /* enum filter_use of the map selected_cgroups, and so on */
	__u32 by_pid;
	__u32 by_comm;
	__u32 by_uid;
	__u32 by_netns;
	__u32 by_result; /* 1: results tells which; bit 0 is RESULT_ABORTED, 1 is ok, then errnos */
	__u32 by_address[SIDE_COUNT]; /* enum filter_use */
	__u32 by_port[SIDE_COUNT];
	__u32 undecided;  /* 1: new cgroups may match a pattern */
	__u32 count;	  /* 1: count, and send nothing for each event */
	__u32 count_by;	  /* enum count_by, as bits */
	__u32 saddr_bits; /* of addresses that are counted by */
	__u32 daddr_bits;
	__u32 by_name; /* enum filter_use of the map named_cgroups */
	__u64 results[CGNET_RESULT_WORDS];
	struct hierarchy hierarchy[CGNET_HIERARCHIES];
};

_Static_assert(sizeof(struct head) == 16, "struct head");
_Static_assert(sizeof(struct owner) == 40, "struct owner");
_Static_assert(sizeof(struct flow) == 48, "struct flow");
_Static_assert(sizeof(struct outcome) == 16, "struct outcome");
_Static_assert(sizeof(struct connect_event) == 120, "struct connect_event");
_Static_assert(sizeof(struct cgroup_event) == 1056, "struct cgroup_event");
_Static_assert(sizeof(struct cgroup_key) == 16, "struct cgroup_key");
_Static_assert(sizeof(struct cgroup_mark) == 8, "struct cgroup_mark");
_Static_assert(sizeof(struct listener_key) == 24, "struct listener_key");
_Static_assert(sizeof(struct listening) == 48, "struct listening");
_Static_assert(sizeof(struct netns_value) == 16, "struct netns_value");
_Static_assert(sizeof(struct pid_value) == 16, "struct pid_value");
_Static_assert(sizeof(struct address_key) == 24, "struct address_key");
_Static_assert(sizeof(struct port_flags) == 65536, "struct port_flags");
_Static_assert(sizeof(struct count_key) == 96, "struct count_key");
_Static_assert(sizeof(struct config) == 152, "struct config");

#endif
