/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Connection, or packet, by its addresses. */
#ifndef CGNET_ABI_FLOW_H
#define CGNET_ABI_FLOW_H

/* Side of a connection that the owner is on. */
enum role {
	ROLE_CLIENT = 1,
	ROLE_SERVER = 2,
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

_Static_assert(sizeof(struct flow) == 48, "struct flow");

#endif
