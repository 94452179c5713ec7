/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Dropped packets, and the rule of their classes. */
#ifndef CGNET_ABI_DROP_H
#define CGNET_ABI_DROP_H

#include "flow.h"
#include "owner.h"
#include "packet.h"
#include "peer.h"
#include "record.h"

#define CGNET_FRAMES 24
#define CGNET_BENIGN 4
#define CGNET_RECEIVING 2
#define CGNET_FUNCTION_CLASSES 32

/* Class of a drop for fault finding. */
enum drop_class {
	DROP_UNKNOWN = 0,
	DROP_BENIGN = 1, /* part of ordinary traffic */
	DROP_PEER = 2,	 /* caused by the other side */
	DROP_APPLICATION = 3,
	DROP_RESOURCE = 4,
	DROP_FIREWALL = 5,
	DROP_CONFIGURATION = 6,
};

/* Reasons that only cgnet reports: to the kernel these packets are consumed. */
enum told_reason {
	REASON_SYN_QUEUE_FULL = 0xfffffffd,
};

/* Packet that the kernel dropped. */
struct drop {
	__u64 location; /* in the kernel's code */
	__u32 reason;	/* as numbered by this kernel */
	__u32 ifindex;	/* 0: unknown */
	__u32 len;	/* includes the IP header */
	__u32 payload;
	__u8 tcp_flags;
	__u8 tcp_state; /* of the socket; 0: no socket */
	__u8 drop_class;
	__u8 frames; /* stack frames in use */
	__u32 seq;
	__u8 role;	 /* enum role; 0: unknown */
	__u8 sent;	 /* 1: sent by its socket */
	__u8 new_data;	 /* 1: data for a connection that its receiver had closed */
	__u8 own_filter; /* 1: the application has attached a filter to the socket */
	__u8 pad[4];
	char dev[CGNET_DEV_LEN];
};

struct drop_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct packet_end end;
	struct drop drop;
	__u64 stack[CGNET_FRAMES]; /* innermost first */
};

/* Class of drops in these functions, if the reason is inconclusive: enum drop_class. */
struct function_classes {
	struct code_range code[CGNET_FUNCTION_CLASSES];
	__u32 drop_class[CGNET_FUNCTION_CLASSES];
};

/* Rule of drop/class.bpf.h. A reason that the kernel does not have is a number that no drop has. */
struct class_config {
	__u32 not_specified;	/* number of NOT_SPECIFIED, the reason that gives none */
	__u32 flags_reason;	/* reason of a segment whose flags do not fit the state */
	__u32 paws_reason;	/* reason of an old time stamp */
	__u32 close_reason;	/* reason of a segment for a connection that has just ended */
	__u32 filter_reason;	/* reason of a filter at the socket or at its cgroup */
	__u32 no_socket_reason; /* reason of a packet for which there is no socket */
	__u32 overflow_reason;	/* reason of a packet that a full accept queue refuses */
	__u32 pad;
	__u64 start_ns;				     /* start of the run, of CLOCK_MONOTONIC */
	struct code_range benign_code[CGNET_BENIGN]; /* functions with benign drops */
	struct code_range receiving_code[CGNET_RECEIVING]; /* TCP, for each address family */
	struct code_range resetting_code[CGNET_RECEIVING]; /* likewise, with a socket */
};

struct drop_config {
	__u32 benign;		 /* 1: show benign drops, too */
	__u32 stacks;		 /* 1: records include their stacks */
	__u32 by_reason;	 /* enum filter_use of the map selected_reasons */
	__u32 by_class;		 /* enum drop_class, as bits; 0: any */
	__u32 by_state;		 /* TCP states, as bits; 0: any */
	__u32 by_dev;		 /* enum filter_use of the map selected_devices */
	__u32 syn_drops;	 /* 1: show SYNs that a full queue dropped */
	__u32 consume_arguments; /* of consume_skb: 1, 2 with the location */
};

_Static_assert(sizeof(struct drop) == 56, "struct drop");
_Static_assert(sizeof(struct drop_event) == 368, "struct drop_event");
_Static_assert(sizeof(struct function_classes) == 640, "struct function_classes");
_Static_assert(sizeof(struct class_config) == 168, "struct class_config");
_Static_assert(sizeof(struct drop_config) == 32, "struct drop_config");

#endif
