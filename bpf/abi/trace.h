/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packets on their path, stage by stage. */
#ifndef CGNET_ABI_TRACE_H
#define CGNET_ABI_TRACE_H

#include "count.h"
#include "flow.h"
#include "owner.h"
#include "packet.h"
#include "peer.h"
#include "record.h"

#define CGNET_STAGES 24
#define CGNET_IN_FLIGHT 16384 /* packets that trace follows at once */
#define CGNET_RECENT 64	      /* of these, the newest that each CPU keeps apart */
#define CGNET_EVICTED 2	      /* flag of in_flight_packet.waits */

/* Stage at which a packet is observed. */
enum stage_at {
	STAGE_APP_WRITE = 1,
	STAGE_NAGLE = 2,
	STAGE_WINDOW = 3,
	STAGE_TCP_TRANSMIT = 4,
	STAGE_NF_OUTPUT = 5,
	STAGE_IP_OUT = 6,
	STAGE_NF_POSTROUTING = 7,
	STAGE_DEV_QUEUE = 8,
	STAGE_QDISC_ENQUEUE = 9,
	STAGE_QDISC_DEQUEUE = 10,
	STAGE_DEV_XMIT = 11,
	STAGE_NETIF_RX = 12,
	STAGE_GRO = 13,
	STAGE_NETIF_RECEIVE = 14,
	STAGE_NF_NETDEV = 15,
	STAGE_NF_BRIDGE = 16,
	STAGE_IP_RCV = 17,
	STAGE_NF_PREROUTING = 18,
	STAGE_NF_FORWARD = 19,
	STAGE_NF_INPUT = 20,
	STAGE_TCP_RCV = 21,
	STAGE_TCP_BACKLOG = 22,
	STAGE_TCP_RECEIVE = 23,
	STAGE_SOCK_QUEUE = 24,
	STAGE_IN_ORDER = 25,
	STAGE_APP_READ = 26,
	STAGE_DROP = 27,
	STAGE_CONSUME = 28,
	STAGE_RETRANSMIT = 29, /* in sums only: the time until its retransmission */
	STAGE_ANSWER = 30,     /* likewise: from reading a request to its answer */
	STAGE_COUNT = 31,
};

/* Verdict on a packet in a netfilter hook. */
enum verdict {
	VERDICT_NONE = 0, /* no hook */
	VERDICT_ACCEPT = 1,
	VERDICT_DROP = 2,
	VERDICT_STOLEN = 3, /* taken by a rule, or by a queue to user space */
};

enum trace_end {
	TRACE_GOES_ON = 0,
	TRACE_DELIVERED = 1, /* the application read it */
	TRACE_CONSUMED = 2,  /* fully processed, or left the host */
	TRACE_DROPPED = 3,
};

struct stage {
	__u64 ts_ns;
	__u32 netns; /* inode; 0: unknown */
	__u16 cpu;
	__u8 at;      /* enum stage_at */
	__u8 verdict; /* enum verdict */
	char dev[CGNET_DEV_LEN];
};

/* Trace of a packet through the kernel. */
struct packet_trace {
	__u64 packet;	  /* number from a counter */
	__u64 retrans_of; /* packet that carried the data before; 0: none, or unknown */
	__u64 location;	  /* of the drop */
	__u32 reason;
	__u32 seq;
	__u32 ack;
	__u32 len; /* includes the IP header */
	__u32 payload;
	__u16 segs;
	__u8 tcp_flags;
	__u8 end;	    /* enum trace_end */
	__u8 stages;	    /* number in use */
	__u8 role;	    /* enum role of the owner; 0: unknown */
	__u8 sent;	    /* 1: sent by a socket of this host */
	__u8 retransmitted; /* 1: TCP had sent its data before */
	__u8 out_of_order;  /* 1: reached its socket before preceding data */
	__u8 pad[3];
	__u64 retrans_ns; /* since retrans_of was sent; 0: unknown */
	__u64 answer_ns;  /* from reading a request to writing this; 0: unknown */
};

/* Only the stages in use are sent. */
struct trace_event {
	struct head head;
	struct owner owner;
	struct flow flow;
	struct packet_end end; /* until the end of the packet, of its sender if it is sent here */
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

struct trace_config {
	__u64 min_ns; /* faster packets are skipped */
	__u64 slow_stage_ns;
	__u32 slow_stage;    /* enum stage_at to check for delay; 0: none */
	__u32 by_end;	     /* enum trace_end, as bits; 0: any */
	__u32 retransmitted; /* 1: only retransmitted packets */
	__u32 in_flight;     /* limit on the packets in flight */
	__u32 recent;	     /* packets that a CPU keeps unqueued: a power of two; 0: none */
	__u32 pad;
};

_Static_assert(sizeof(struct stage) == 32, "struct stage");
_Static_assert(sizeof(struct packet_trace) == 72, "struct packet_trace");
_Static_assert(sizeof(struct trace_event) == 960, "struct trace_event");
_Static_assert(sizeof(struct in_flight_packet) == 1032, "struct in_flight_packet");
_Static_assert(sizeof(struct trace_config) == 40, "struct trace_config");
_Static_assert(CGNET_STAGE_KINDS == STAGE_COUNT, "enum stage_at");

#endif
