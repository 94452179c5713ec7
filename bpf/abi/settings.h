/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Settings of the programs by user space, and keys of the maps that both use. */
#ifndef CGNET_ABI_SETTINGS_H
#define CGNET_ABI_SETTINGS_H

#include "facts.h"

#define CGNET_HIERARCHIES 4
#define CGNET_RESULT_WORDS 4
#define CGNET_PORTS 65536
#define CGNET_BUCKETS 256 /* of a histogram; a power of two */
#define CGNET_BENIGN 4
#define CGNET_STAGE_KINDS 31 /* STAGE_COUNT */
#define CGNET_RECEIVING 2
#define CGNET_FUNCTION_CLASSES 32
#define CGNET_FREEING 4
#define CGNET_IN_FLIGHT 16384 /* packets that trace follows at once */
#define CGNET_RECENT 64	      /* of these, the newest that each CPU keeps apart */
#define CGNET_EVICTED 2	      /* flag of in_flight_packet.waits */
#define CGNET_SUMS_EACH 4     /* slots of a CPU for sums of stages; a power of two */

/* Hook for errors of connect() that return before a SYN is sent. */
enum sync_errors {
	SYNC_ERRORS_UNSEEN = 0,
	SYNC_ERRORS_BY_FUNCTION = 1, /* return of tcp_v4_connect and tcp_v6_connect */
	SYNC_ERRORS_BY_SYSCALL = 2,  /* return of the system call */
};

/* Cgroup controller of v1, or the only hierarchy of v2. */
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

struct cgroup_key {
	__u64 id;
	__u32 hierarchy;
	__u32 pad;
};

/* The filter's marks of a cgroup. A child inherits those of its parent. */
enum cgroup_marks {
	CGROUP_SELECTED = 1, /* as enum filter_use */
	CGROUP_EXCLUDED = 2,
	CGROUP_UNDECIDED = 4, /* new: its path may match a pattern */
	CGROUP_SETTLED = 8,   /* decided by user space: the marks no longer change */
};

struct cgroup_mark {
	__u32 marks; /* enum cgroup_marks */
	__u32 given; /* number of the --cgroup that selected it, from 1 */
};

struct hierarchy {
	__u32 id;	  /* the kernel's hierarchy id; 0 is v2 */
	__u32 controller; /* enum cgroup_controller */
};

/*
 * Use of a filter's values, and of one value. An event that matches an excluding value is rejected; if some
 * values include, so is an event that matches none of them.
 */
enum filter_use {
	FILTER_INCLUDES = 1,
	FILTER_EXCLUDES = 2,
};

/* Part of a flow to match with an address or a port. */
enum flow_side {
	SIDE_SOURCE = 0,
	SIDE_DESTINATION = 1,
	SIDE_EITHER = 2,
	SIDE_COUNT = 3,
};

/* Filter value of a network namespace, by inode. Inodes are reused; cookies are not. */
struct netns_value {
	__u64 cookie; /* 0: any */
	__u32 use;    /* enum filter_use */
	__u32 pad;
};

/* Filter value of a process, by PID. PIDs are reused; the start time tells the processes apart. */
struct pid_value {
	__u64 start; /* since boot, in units of 10 ms as in /proc */
	__u32 use;   /* enum filter_use */
	__u32 pad;
};

/* Local address of a listener. */
struct listener_key {
	__u32 netns; /* inode */
	__u16 port;
	__u16 pad;
	__u8 address[16]; /* IPv4 as mapped; zeros: any */
};

/* Owner of a socket, and whether it is selected. */
struct holder {
	struct owner owner;
	__u16 wanted;  /* 1: the owner passes the filters */
	__u16 alone;   /* 1: first at its address, and not in storage: children inherit no entry */
	__u32 sockets; /* number of listeners at the address */
};

/*
 * File descriptor of a process, by kernel addresses that are compared, and read with fault handling. It shows
 * whether the process still has the file.
 */
struct descriptor {
	__u64 task;  /* task with the file table; 0: unknown */
	__u64 file;  /* 0: unknown */
	__u64 start; /* of the process, as in struct pid_value */
	__s32 fd;    /* -1: unknown */
	__u32 pad;
};

/* Listening socket, and its current owner. */
struct tcp_listener {
	struct holder holder;
	struct descriptor at;
	__u64 inode; /* of the socket */
	struct listener_key place;
};

/* Process that has a listener open, as reported by an iterator. */
struct listener_fd {
	__u64 inode;
	__u32 pid;
	__u32 pad;
	struct descriptor at;
};

/* Query of user space about a socket, for kernels without iterators: see owner/socket_query.bpf.h. */
struct question {
	__u64 name[2]; /* unique name that the querying thread takes */
	__u64 address; /* of a socket in the ledger; 0: the socket open as `fd` */
	__s32 process; /* descriptor of /proc/PID in the querying process */
	__s32 fd;      /* descriptor in the process of /proc/PID */
};

/* Owner of a network namespace, by its inode. */
struct netns_owner {
	__u64 cookie;	 /* 0: any */
	__u64 cgroup_id; /* in the hierarchy that names owners */
};

/* Address that only one container has. */
struct device_address {
	__u8 address[16];
	__u8 family; /* 4 or 6 */
	__u8 pad[3];
};

/* Key of the map selected_addresses: list, family and address, most significant first. */
struct address_key {
	__u32 prefixlen; /* number of bits in the rest of the key */
	__u8 list;	 /* 2 * enum flow_side, plus 1 if it excludes */
	__u8 family;	 /* 4 or 6 */
	__u8 address[16];
	__u8 pad[2];
};

/* Two bits per side for each port, from bit 0: included, excluded. */
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
	BY_REASON = 4096,
	BY_LOCATION = 8192,
	BY_STACK = 16384,
	BY_STAGE = 32768,
};

/* Key of a count: the requested parts, and zeros. */
struct count_key {
	struct owner owner;
	struct flow flow;
	__u32 role;	/* enum role */
	__s32 result;	/* errno, or enum attempt_result; of drops: the reason */
	__u64 location; /* of drops */
};

/* Histogram of values; see bucket_starts in struct config. */
struct histogram {
	__u64 count;
	__u64 sum;
	__u64 min;
	__u64 max;
	__u64 buckets[CGNET_BUCKETS];
};

/* Head of the sums of a CPU; a histogram for each enum stage_at follows. */
struct sums_head {
	__u64 state; /* enum sums_state */
	struct count_key key;
};

enum sums_state {
	SUMS_FREE = 0,
	SUMS_BEGUN = 1, /* a program is writing the key */
	SUMS_OF_KEY = 2,
};

/* Address range of a function. */
struct code_range {
	__u64 start;
	__u64 end; /* exclusive */
};

/* Class of drops in these functions, if the reason is inconclusive: enum drop_class. */
struct function_classes {
	struct code_range code[CGNET_FUNCTION_CLASSES];
	__u32 drop_class[CGNET_FUNCTION_CLASSES];
};

/* Configuration, read-only for the programs, set before they are loaded. */
struct config {
	__u32 hierarchies; /* entries of the array in use; the first one names owners */
	__u32 sync_errors; /* enum sync_errors */
	__u32 roles;	   /* enum role, as bits: connections to show */
	__u32 family;	   /* 4, 6, or 0 for both */
	__u32 by_cgroup;   /* enum filter_use of the map selected_cgroups, and so on */
	__u32 by_pid;
	__u32 by_comm;
	__u32 by_uid;
	__u32 by_netns;
	__u32 by_result; /* 1: selected by `results`; bit 0 is RESULT_ABORTED, 1 is ok, then errnos */
	__u32 by_address[SIDE_COUNT]; /* enum filter_use */
	__u32 by_port[SIDE_COUNT];
	__u32 undecided;  /* 1: new cgroups may match a pattern */
	__u32 count;	  /* 1: count, and send no record of each event */
	__u32 count_by;	  /* enum count_by, as bits */
	__u32 saddr_bits; /* prefix length of counted addresses */
	__u32 daddr_bits;
	__u32 by_name;	     /* enum filter_use of the map named_cgroups */
	__u32 histogram;     /* 1: counts have values, too */
	__u32 no_handshakes; /* 1: skip round-trip times of handshakes */
	__u32 smoothed;	     /* 1: use the stack's smoothed round-trip time for each measured one */
	__u32 by_closed;     /* enum closed_by, as bits; 0: any */
	__u32 by_cause;	     /* enum close_cause, as bits; 0: any */
	__u32 drop_arguments; /* of kfree_skb: 2, 3 with the reason, 4 with the socket */
	__u32 not_specified;  /* number of NOT_SPECIFIED, the reason that gives none */
	__u32 flags_reason;   /* reason of a segment whose flags do not fit the state */
	__u32 stacks;	      /* 1: drops include their stacks */
	__u32 benign;	      /* 1: show benign drops, too */
	__u32 by_reason;      /* enum filter_use of the map selected_reasons */
	__u32 by_class;	      /* enum drop_class, as bits; 0: any */
	__u32 by_state;	      /* TCP states, as bits; 0: any */
	__u32 by_dev;	      /* enum filter_use of the map selected_devices */
	__u32 by_end;	      /* enum trace_end, as bits; 0: any */
	__u32 retransmitted;  /* 1: only retransmitted packets */
	__u32 in_flight;      /* limit on the packets in flight */
	__u32 recent;	      /* packets that a CPU keeps unqueued: a power of two; 0: none */
	__u32 paws_reason;    /* reason of an old time stamp */
	__u32 slow_stage;     /* enum stage_at to check for delay; 0: none */
	__u32 close_reason;   /* reason of a segment for a connection that has just ended */
	__u32 no_socket_reason;
	__u32 filter_reason; /* reason of a filter at the socket or at its cgroup */
	__u32 reserved;
	__u64 slow_stage_ns;
	struct code_range benign_code[CGNET_BENIGN];	   /* functions with benign drops */
	struct code_range receiving_code[CGNET_RECEIVING]; /* TCP, for each address family */
	struct code_range resetting_code[CGNET_RECEIVING]; /* likewise, with a socket */
	__u64 start_ns;				       /* start of the run, of CLOCK_MONOTONIC */
	struct code_range freeing_code[CGNET_FREEING]; /* kfree_skb() and similar functions */
	__u64 overflow_reason;	 /* reason of SYNs dropped by a full accept queue */
	__u32 syn_drops;	 /* 1: show these */
	__u32 consume_arguments; /* of consume_skb: 1, 2 with the location */
	__u64 least_ns;		 /* minimum: faster events are skipped */
	__u64 least_bytes;
	__u64 results[CGNET_RESULT_WORDS];
	__u64 bucket_starts
		[CGNET_BUCKETS]; /* least value of each bucket of a histogram but the first */
	struct hierarchy hierarchy[CGNET_HIERARCHIES];
};

_Static_assert(sizeof(struct cgroup_key) == 16, "struct cgroup_key");
_Static_assert(sizeof(struct cgroup_mark) == 8, "struct cgroup_mark");
_Static_assert(sizeof(struct listener_key) == 24, "struct listener_key");
_Static_assert(sizeof(struct holder) == 48, "struct holder");
_Static_assert(sizeof(struct descriptor) == 32, "struct descriptor");
_Static_assert(sizeof(struct tcp_listener) == 112, "struct tcp_listener");
_Static_assert(sizeof(struct listener_fd) == 48, "struct listener_fd");
_Static_assert(sizeof(struct question) == 32, "struct question");
_Static_assert(sizeof(struct device_address) == 20, "struct device_address");
_Static_assert(sizeof(struct netns_owner) == 16, "struct netns_owner");
_Static_assert(sizeof(struct netns_value) == 16, "struct netns_value");
_Static_assert(sizeof(struct pid_value) == 16, "struct pid_value");
_Static_assert(sizeof(struct address_key) == 24, "struct address_key");
_Static_assert(sizeof(struct port_flags) == 65536, "struct port_flags");
_Static_assert(sizeof(struct count_key) == 104, "struct count_key");
_Static_assert(sizeof(struct histogram) == 2080, "struct histogram");
_Static_assert(sizeof(struct function_classes) == 640, "struct function_classes");
_Static_assert(CGNET_STAGE_KINDS == STAGE_COUNT, "enum stage_at");
_Static_assert(sizeof(struct sums_head) == 112, "struct sums_head");
_Static_assert(sizeof(struct config) == 2536, "struct config");

#endif
