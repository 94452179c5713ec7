/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Facts about a socket and its connection: in records, in keys of counts, in the ledger. */
#ifndef CGNET_ABI_FACTS_H
#define CGNET_ABI_FACTS_H

#define CGNET_COMM_LEN 16
#define CGNET_DEV_LEN 16

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

/* Side of a connection that the owner is on. */
enum role {
	ROLE_CLIENT = 1,
	ROLE_SERVER = 2,
};

/* Results of an attempt that have no errno. Other values are errnos; 0 is success. */
enum attempt_result {
	RESULT_OK = 0,
	RESULT_ABORTED = -1,
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

/*
 * Addresses are in network byte order, IPv4 in the first four bytes; ports in host byte order. The values
 * that two connections of a client to a service share come before the local port.
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
	__u64 latency_ns; /* 0: it failed before a SYN could be sent */
	__u32 syn_retrans;
	__s16 result;	/* errno, or enum attempt_result */
	__u8 tcp_state; /* last state that the attempt reached */
	__u8 role;	/* enum role */
};

/* Measurement of the round-trip time. */
struct rtt_sample {
	__u32 rtt_us;  /* as measured */
	__u32 srtt_us; /* smoothed by the stack, after the measurement */
	__u8 tcp_state;
	__u8 role;	/* enum role; 0: open before the start */
	__u8 handshake; /* 1: measured in the handshake */
	__u8 pad[5];
};

/* Side that ended a connection. */
enum closed_by {
	CLOSED_BY_LOCAL = 1,
	CLOSED_BY_PEER = 2,
	CLOSED_BY_KERNEL = 3,
};

enum close_cause {
	CLOSE_FIN = 1,
	CLOSE_RST = 2,
	CLOSE_TIMEOUT = 3,
	CLOSE_ABORT = 4, /* killed from outside, as by `ss -K` */
};

/* Connection at its end, or at present. */
struct life {
	__u64 duration_ns;  /* since it was established; 0: before the start */
	__u64 handshake_ns; /* 0: unknown */
	__u64 tx_bytes;	    /* payload, acknowledged */
	__u64 rx_bytes;	    /* payload, received in order */
	__u32 tx_segs;
	__u32 rx_segs;
	__u32 retrans;
	__u32 srtt_us;	  /* 0: never measured */
	__u32 min_rtt_us; /* ~0: never measured */
	__u16 rst_reason; /* enum sk_rst_reason, plus 1; 0: unknown */
	__u8 tcp_state;	  /* last one before the end */
	__u8 role;	  /* enum role; 0: open before the start */
	__u8 closed_by;	  /* enum closed_by; 0: it is open */
	__u8 close_cause; /* enum close_cause */
	__u16 pad;
	__u32 retrans_delta; /* deltas since the connection's last record */
	__u64 tx_bytes_delta;
	__u64 rx_bytes_delta;
};

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

_Static_assert(sizeof(struct owner) == 40, "struct owner");
_Static_assert(sizeof(struct flow) == 48, "struct flow");
_Static_assert(sizeof(struct outcome) == 16, "struct outcome");
_Static_assert(sizeof(struct rtt_sample) == 16, "struct rtt_sample");
_Static_assert(sizeof(struct life) == 80, "struct life");
_Static_assert(sizeof(struct drop) == 56, "struct drop");
_Static_assert(sizeof(struct stage) == 32, "struct stage");
_Static_assert(sizeof(struct packet_trace) == 72, "struct packet_trace");

#endif
