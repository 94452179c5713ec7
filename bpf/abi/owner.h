/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Owners of sockets, and the ledger that keeps them. */
#ifndef CGNET_ABI_OWNER_H
#define CGNET_ABI_OWNER_H

#define CGNET_COMM_LEN 16
#define CGNET_HIERARCHIES 4

/* Step of the ledger that found the owner. */
enum owner_source {
	OWNER_UNKNOWN = 0,
	OWNER_LEARNED = 1,
	OWNER_INHERITED = 2, /* from the listener of an accepted connection */
	OWNER_SEEDED = 3,    /* found among the files of the processes at the start */
	OWNER_SK_CGRP = 4,   /* from here on only the cgroup is known: v2's, of the socket itself */
	OWNER_MEMCG = 5,     /* the cgroup that the socket's memory is charged to */
	OWNER_NETNS = 6,     /* the only container, or pod, in the socket's network namespace */
	OWNER_DEVICE = 7,    /* the container at the other end of a packet's veth */
	OWNER_ADDRESS = 8,   /* the container with a packet's address */
};

/* Whether user space must match the cgroup's path against patterns. */
enum undecided {
	UNDECIDED_NOT = 0,
	UNDECIDED_NEW = 1,	/* new cgroup: selected if a pattern includes it */
	UNDECIDED_SELECTED = 2, /* selected, unless a pattern excludes it */
	UNDECIDED_NAME = 4,	/* also: selected if its container's name is */
};

/* User of a socket. pid and uid are those of the initial namespaces. */
struct owner {
	__u64 cgroup_id; /* in the hierarchy below; 0 when unknown */
	__u32 hierarchy; /* the kernel's hierarchy id */
	__u8 source;	 /* enum owner_source */
	__u8 undecided;	 /* enum undecided */
	__u16 given;	 /* number of the --cgroup that selected it, from 1; 0: none */
	__u32 pid;	 /* thread group id; 0 when unknown */
	__u32 uid;
	char comm[CGNET_COMM_LEN];
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

struct hierarchy {
	__u32 id;	  /* the kernel's hierarchy id; 0 is v2 */
	__u32 controller; /* enum cgroup_controller */
};

/* Hierarchies of cgroups to read: those of the owners and of the filter. */
struct owner_config {
	__u32 hierarchies; /* entries of the array in use; the first one names owners */
	__u32 pad;
	struct hierarchy hierarchy[CGNET_HIERARCHIES];
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

_Static_assert(sizeof(struct owner) == 40, "struct owner");
_Static_assert(sizeof(struct owner_config) == 40, "struct owner_config");
_Static_assert(sizeof(struct listener_key) == 24, "struct listener_key");
_Static_assert(sizeof(struct holder) == 48, "struct holder");
_Static_assert(sizeof(struct descriptor) == 32, "struct descriptor");
_Static_assert(sizeof(struct tcp_listener) == 112, "struct tcp_listener");
_Static_assert(sizeof(struct listener_fd) == 48, "struct listener_fd");
_Static_assert(sizeof(struct question) == 32, "struct question");
_Static_assert(sizeof(struct netns_owner) == 16, "struct netns_owner");
_Static_assert(sizeof(struct device_address) == 20, "struct device_address");

#endif
