/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What user space tells the programs, and the keys of maps that both look into. */
#ifndef CGNET_ABI_SETTINGS_H
#define CGNET_ABI_SETTINGS_H

#include "facts.h"

#define CGNET_HIERARCHIES 4
#define CGNET_RESULT_WORDS 4
#define CGNET_PORTS 65536
#define CGNET_BUCKETS 128
#define CGNET_BENIGN 4
#define CGNET_STAGE_KINDS 31 /* STAGE_COUNT */
#define CGNET_RECEIVING 2
#define CGNET_FUNCTION_CLASSES 32
#define CGNET_FREEING 4

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
	CGROUP_SETTLED = 8,   /* user space knows it, and says nothing else of it any more */
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

/* Where somebody listens. */
struct listener_key {
	__u32 netns; /* inode */
	__u16 port;
	__u16 pad;
	__u8 address[16]; /* IPv4 as mapped; zeros: any */
};

/* Who has a socket. */
struct holder {
	struct owner owner;
	__u16 wanted; /* 1: the owner passes the filters */
	__u16 alone; /* 1: where they are kept by place: of the first one, whose children aren't given it */
	__u32 sockets; /* that listen there */
};

/*
 * A file descriptor of a process, by kernel addresses that are compared, and read with care. It tells whether
 * the process still has the file.
 */
struct descriptor {
	__u64 task;  /* with the table of files; 0: unknown */
	__u64 file;  /* 0: unknown */
	__u64 start; /* of the process, as in struct pid_value */
	__s32 fd;    /* -1: unknown */
	__u32 pad;
};

/* A socket that listens, and who has it now. */
struct tcp_listener {
	struct holder holder;
	struct descriptor at;
	__u64 inode; /* of the socket */
	struct listener_key place;
};

/* A process that has a listener open, as an iterator tells it. */
struct listener_fd {
	__u64 inode;
	__u32 pid;
	__u32 pad;
	struct descriptor at;
};

/* What user space asks of a socket, where the kernel has no iterators: see owner/socket_query.bpf.h. */
struct question {
	__u64 name[2]; /* that a thread of its own gets then: nobody else has it */
	__u64 address; /* of a socket in the ledger; 0: it is the one that is open as `fd` */
	__s32 process; /* in the asking process: the descriptor of /proc/PID */
	__s32 fd;      /* of that process */
};

/* Whose a network namespace is, by its inode. */
struct netns_owner {
	__u64 cookie;	 /* 0: any */
	__u64 cgroup_id; /* in the hierarchy that names owners */
};

/* An address that one container alone has. */
struct device_address {
	__u8 address[16];
	__u8 family; /* 4 or 6 */
	__u8 pad[3];
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
	BY_REASON = 4096,
	BY_LOCATION = 8192,
	BY_STACK = 16384,
	BY_STAGE = 32768,
};

/* What is counted together: the parts that were asked for, and zeros. */
struct count_key {
	struct owner owner;
	struct flow flow;
	__u32 role;	/* enum role */
	__s32 result;	/* errno, or enum attempt_result; of drops the reason */
	__u64 location; /* of drops */
};

/* How values fall into the buckets of a histogram. */
enum histogram_kind {
	HISTOGRAM_NONE = 0,
	HISTOGRAM_LOG2 = 1, /* four for each power of two, of microseconds */
	HISTOGRAM_LINEAR = 2,
};

/* Of linear ones the first and the last bucket have what is below and above. */
struct histogram {
	__u64 count;
	__u64 sum;
	__u64 min;
	__u64 max;
	__u64 buckets[CGNET_BUCKETS];
};

/* What a CPU has summed up begins with this; a histogram for each enum stage_at follows. */
struct sums_head {
	__u64 state; /* enum sums_state */
	struct count_key key;
};

enum sums_state {
	SUMS_FREE = 0,
	SUMS_BEGUN = 1, /* somebody writes the key */
	SUMS_OF_KEY = 2,
};

/* A function. */
struct code_range {
	__u64 start;
	__u64 end; /* behind it */
};

/* What drops in these functions mean where their reason says nothing: enum drop_class. */
struct function_classes {
	struct code_range code[CGNET_FUNCTION_CLASSES];
	__u32 drop_class[CGNET_FUNCTION_CLASSES];
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
	__u32 by_name;	     /* enum filter_use of the map named_cgroups */
	__u32 histogram;     /* enum histogram_kind: what is counted has values, too */
	__u32 histogram_low; /* of linear ones, in microseconds */
	__u32 histogram_step;
	__u32 histogram_steps;
	__u32 no_handshakes;  /* 1: round-trip times of handshakes are left out */
	__u32 smoothed;	      /* 1: the stack's smoothed round-trip time for each measured one */
	__u32 by_closed;      /* enum closed_by, as bits; 0: any */
	__u32 by_cause;	      /* enum close_cause, as bits; 0: any */
	__u32 drop_arguments; /* of kfree_skb: 2, 3 with the reason, 4 with the socket */
	__u32 not_specified;  /* the reason that tells none */
	__u32 flags_reason;   /* that of a segment whose flags don't fit the state */
	__u32 stacks;	      /* 1: drops come with their stacks */
	__u32 benign;	      /* 1: drops that are no fault are shown, too */
	__u32 by_reason;      /* enum filter_use of the map selected_reasons */
	__u32 by_class;	      /* enum drop_class, as bits; 0: any */
	__u32 by_state;	      /* TCP states, as bits; 0: any */
	__u32 by_dev;	      /* enum filter_use of the map selected_devices */
	__u32 by_end;	      /* enum trace_end, as bits; 0: any */
	__u32 retransmitted;  /* 1: only packets that were sent again */
	__u32 in_flight;      /* so many packets are followed at once */
	__u32 recent; /* references that a CPU keeps before they go to the queue of all: a power of two; 0: none */
	__u32 paws_reason;  /* that of an old time stamp */
	__u32 slow_stage;   /* enum stage_at whose delay is looked at; 0: none */
	__u32 close_reason; /* that of a segment for a connection that has just ended */
	__u32 no_socket_reason;
	__u32 filter_reason; /* that of a filter at the socket or at its cgroup */
	__u64 slow_stage_ns;
	struct code_range benign_code[CGNET_BENIGN];	   /* they drop packets for no fault */
	struct code_range receiving_code[CGNET_RECEIVING]; /* TCP, for each family */
	struct code_range resetting_code[CGNET_RECEIVING]; /* likewise, with a socket */
	__u64 start_ns;				       /* when the run began, of CLOCK_MONOTONIC */
	struct code_range freeing_code[CGNET_FREEING]; /* kfree_skb() and its kind */
	__u64 overflow_reason;	 /* of SYNs that a full accept queue swallows */
	__u32 syn_drops;	 /* 1: these are shown */
	__u32 consume_arguments; /* of consume_skb: 1, 2 with the location */
	__u64 least_ns;		 /* what took less is left out */
	__u64 least_bytes;
	__u64 results[CGNET_RESULT_WORDS];
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
_Static_assert(sizeof(struct histogram) == 1056, "struct histogram");
_Static_assert(sizeof(struct function_classes) == 640, "struct function_classes");
_Static_assert(CGNET_STAGE_KINDS == STAGE_COUNT, "enum stage_at");
_Static_assert(sizeof(struct sums_head) == 112, "struct sums_head");
_Static_assert(sizeof(struct config) == 496, "struct config");

#endif
