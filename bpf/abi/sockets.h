/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Listing of open sockets: its records, and the queries that make it. */
#ifndef CGNET_ABI_SOCKETS_H
#define CGNET_ABI_SOCKETS_H

#include "filter.h"
#include "flow.h"
#include "owner.h"
#include "peer.h"
#include "record.h"

#define CGNET_LISTED 512     /* records of one query */
#define CGNET_NAMESPACES 256 /* network namespaces of one query */

/* Timer of a socket that is running. */
enum socket_timer {
	TIMER_NONE = 0,
	TIMER_ON = 1, /* retransmission, tail loss probe, or reordering */
	TIMER_KEEPALIVE = 2,
	TIMER_TIMEWAIT = 3,
	TIMER_PROBE = 4, /* of a closed window */
};

/* Limit of a sender at present, by TCP's chronometer. */
enum socket_limit {
	LIMIT_NONE = 0,
	LIMIT_RWND = 2, /* as the kernel's enum tcp_chrono */
	LIMIT_SNDBUF = 3,
};

/* State of an open socket. All ones: the value does not exist in its TCP state, or is unknown. */
struct open_socket {
	__u64 address; /* in the kernel; reused */
	__u64 inode;   /* of its file; 0: it has none */
	__u64 age_us;
	__u64 timer_us; /* until the timer expires */
	__u64 last_sent_us;
	__u64 last_received_us;
	__u64 delivery_rate; /* bytes a second */
	__u64 tx_bytes;	     /* payload, acknowledged */
	__u64 rx_bytes;	     /* payload, received in order */
	__u64 busy_us;
	__u64 rwnd_limited_us;
	__u64 sndbuf_limited_us;
	__u32 recv_q; /* of a listener: children that wait for accept() */
	__u32 send_q; /* of a listener: limit on them */
	__u32 unsent;
	__u32 cwnd;
	__u32 ssthresh;
	__u32 mss;
	__u32 srtt_us;
	__u32 min_rtt_us;
	__u32 retrans;
	__u32 backlog;
	__u32 queue;
	__u32 queue_high;
	__u32 drops;
	__u32 holders; /* processes that have it open */
	__u8 tcp_state;
	__u8 role;	 /* enum role; 0: unknown */
	__u8 timer;	 /* enum socket_timer */
	__u8 limited_by; /* enum socket_limit */
	__u32 shared;	 /* user space: number of the list of its holders; 0: none */
};

struct socket_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct identity identity; /* of a socket that made a handshake */
	struct identity counted;  /* likewise, or of one that may be restored */
	struct open_socket socket;
};

struct sockets_config {
	__u32 by_state; /* TCP states, as bits; 0: any */
	__u32 watches;	/* 1: a program follows the queues of listeners */
};

/* Network namespace, and its tables of sockets, which namespaces may share. */
struct socket_netns {
	__u64 address; /* in the kernel */
	__u64 cookie;  /* 0: unknown */
	__u64 ehash;
	__u64 lhash2;
	__u32 ehash_mask;
	__u32 lhash2_mask;
	__u32 inode;
	__u16 first_port; /* range of ephemeral ports */
	__u16 last_port;
};

/* Table that a query walks. */
enum walked_table {
	WALK_NAMESPACES = 1,
	WALK_LISTENERS = 2,
	WALK_CONNECTIONS = 3,
};

/* Query of user space, and its progress: a program answers as much as there is room for. */
struct socket_query {
	__u64 name[2];	  /* unique name that the querying thread takes */
	__u64 buckets;	  /* address of a table of sockets */
	__u64 next;	  /* address of the next socket, or namespace; 0: the next bucket's first */
	__u64 first;	  /* address of the first namespace */
	__u32 table;	  /* enum walked_table */
	__u32 bucket;	  /* next one */
	__u32 count;	  /* of buckets */
	__u32 used;	  /* records */
	__u32 strayed;	  /* chains that changed while they were walked */
	__u32 listing;	  /* number of this listing: older entries of maps are invalid */
	__u32 hz;	  /* jiffies a second */
	__u32 hide;	  /* 1: list no record */
	__u32 chain;	  /* sockets of this bucket so far */
	__u32 everything; /* 1: also what the filters leave out */
};

/* Socket that processes have open, by inode. */
struct held_socket {
	struct holder holder; /* the first that passes the filters, else the first */
	__u32 listing;	      /* number of the listing that found it */
	__u32 processes;
	__u32 last_pid;
	__u32 pad;
};

/* Further process that has a socket open. */
struct sharer_key {
	__u64 inode;
	__u32 pid;
	__u32 listing;
};

/* Listeners at a port, whose owner the kernel's own remains of connections belong to. */
struct port_key {
	__u32 netns; /* inode */
	__u32 port;
};

struct port_owner {
	__u64 inode; /* of a listener's file; 0: listeners of several owners */
	__u32 listing;
	__u32 pad;
};

_Static_assert(sizeof(struct open_socket) == 160, "struct open_socket");
_Static_assert(sizeof(struct socket_event) == 280, "struct socket_event");
_Static_assert(sizeof(struct sockets_config) == 8, "struct sockets_config");
_Static_assert(sizeof(struct socket_netns) == 48, "struct socket_netns");
_Static_assert(sizeof(struct socket_query) == 80, "struct socket_query");
_Static_assert(sizeof(struct held_socket) == 64, "struct held_socket");
_Static_assert(sizeof(struct sharer_key) == 16, "struct sharer_key");
_Static_assert(sizeof(struct port_key) == 8, "struct port_key");
_Static_assert(sizeof(struct port_owner) == 16, "struct port_owner");

#endif
