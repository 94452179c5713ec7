/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packets, and the tracepoint at which the kernel frees them. */
#ifndef CGNET_ABI_PACKET_H
#define CGNET_ABI_PACKET_H

#define CGNET_DEV_LEN 16
#define CGNET_FREEING 4

/* Address range of a function. */
struct code_range {
	__u64 start;
	__u64 end; /* exclusive */
};

struct packet_config {
	__u32 drop_arguments; /* of kfree_skb: 2, 3 with the reason, 4 with the socket */
	__u32 pad;
	struct code_range freeing_code[CGNET_FREEING]; /* kfree_skb() and similar functions */
};

_Static_assert(sizeof(struct packet_config) == 72, "struct packet_config");

#endif
