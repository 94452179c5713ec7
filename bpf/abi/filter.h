/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Filters, and the cgroups that they select. */
#ifndef CGNET_ABI_FILTER_H
#define CGNET_ABI_FILTER_H

#include "record.h"

#define CGNET_PATH_LEN 1024
#define CGNET_PORTS 65536
#define CGNET_RESULT_WORDS 4

/*
 * Use of a filter's values, and of one value. An event that matches an excluding value is rejected; if some
 * values include, so is an event that matches none of them.
 */
enum filter_use {
	FILTER_INCLUDES = 1,
	FILTER_EXCLUDES = 2,
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

/* Filters in use. by_X is enum filter_use of the map selected_X. */
struct filter_config {
	__u32 roles;  /* enum role, as bits: connections to show */
	__u32 family; /* 4, 6, or 0 for both */
	__u32 by_cgroup;
	__u32 by_pid;
	__u32 by_comm;
	__u32 by_uid;
	__u32 by_netns;
	__u32 by_name;	 /* enum filter_use of the map named_cgroups */
	__u32 by_result; /* 1: selected by `results`; bit 0 is RESULT_ABORTED, 1 is ok, then errnos */
	__u32 undecided; /* 1: new cgroups may match a pattern */
	__u32 by_address[SIDE_COUNT];
	__u32 by_port[SIDE_COUNT];
	__u64 results[CGNET_RESULT_WORDS];
};

/* Cgroup that was created, removed or renamed in a hierarchy in use. */
struct cgroup_event {
	struct head head;
	__u64 cgroup_id;
	__u32 hierarchy;
	__u32 marks; /* enum cgroup_marks, as in the filter's map */
	char path[CGNET_PATH_LEN];
};

_Static_assert(sizeof(struct cgroup_key) == 16, "struct cgroup_key");
_Static_assert(sizeof(struct cgroup_mark) == 8, "struct cgroup_mark");
_Static_assert(sizeof(struct netns_value) == 16, "struct netns_value");
_Static_assert(sizeof(struct pid_value) == 16, "struct pid_value");
_Static_assert(sizeof(struct address_key) == 24, "struct address_key");
_Static_assert(sizeof(struct port_flags) == 65536, "struct port_flags");
_Static_assert(sizeof(struct filter_config) == 96, "struct filter_config");
_Static_assert(sizeof(struct cgroup_event) == 1056, "struct cgroup_event");

#endif
