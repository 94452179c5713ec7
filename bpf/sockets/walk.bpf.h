/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Walk over the kernel's tables of TCP sockets, in which the sockets of all network namespaces are.
 *
 * It takes no lock: a program runs in an RCU section, where memory of sockets remains that of sockets, and a
 * chain ends with the number of its bucket, as for the kernel's own look-ups. A socket that opens or closes
 * meanwhile may be listed or not.
 */
#ifndef CGNET_SOCKETS_WALK_BPF_H
#define CGNET_SOCKETS_WALK_BPF_H

#include "sockets/list.bpf.h"

#define STEPS 128     /* of a run: buckets and sockets */
#define FEW_STEPS 8   /* likewise, where the verifier walks each one */
#define NAMESPACES 16 /* of a run */
#define MAX_CHAIN (1 << 20)

/* -- network namespaces */

/*
 * netns_ipv4.tcp_death_row was a pointer between Linux kernel commits fbb8295248e1 "tcp: allocate
 * tcp_death_row outside of struct netns_ipv4" (in v5.18) and e9bd0cca09d1 "tcp: Don't allocate tcp_death_row
 * outside of struct netns_ipv4" (in v6.1).
 */
struct netns_ipv4___before_v61 {
	struct inet_timewait_death_row *tcp_death_row;
} __attribute__((preserve_access_index));

struct net___before_v61 {
	struct netns_ipv4___before_v61 ipv4;
} __attribute__((preserve_access_index));

static __always_inline struct inet_hashinfo *tables_of(struct net *net)
{
	struct net___before_v61 *old = (void *)net;

	if (bpf_core_field_exists(old->ipv4.tcp_death_row))
		return BPF_CORE_READ(old, ipv4.tcp_death_row, hashinfo);
	return BPF_CORE_READ(net, ipv4.tcp_death_row.hashinfo);
}

/* Two numbers of 32 bits once, and later two of 16 bits in one. */
struct local_ports___two {
	int range[2];
} __attribute__((preserve_access_index));

struct netns_ipv4___two {
	struct local_ports___two ip_local_ports;
} __attribute__((preserve_access_index));

struct net___two {
	struct netns_ipv4___two ipv4;
} __attribute__((preserve_access_index));

static __always_inline void ports_of(struct net *net, struct socket_netns *to)
{
	struct net___two *old = (void *)net;
	u32 range;

	if (bpf_core_field_exists(old->ipv4.ip_local_ports.range)) {
		to->first_port = BPF_CORE_READ(old, ipv4.ip_local_ports.range[0]);
		to->last_port = BPF_CORE_READ(old, ipv4.ip_local_ports.range[1]);
		return;
	}
	range = BPF_CORE_READ(net, ipv4.ip_local_ports.range);
	to->first_port = range;
	to->last_port = range >> 16;
}

/* The head of the list of namespaces is in none: its neighbours in memory aren't a namespace's. */
static __always_inline bool is_namespace(struct net *net)
{
	return (struct net *)BPF_CORE_READ(net, loopback_dev, nd_net.net) == net;
}

static __always_inline void tell_namespace(struct socket_query *asked, struct net *net)
{
	struct namespaces *all = bpf_map_lookup_elem(&namespaces, &(u32){0});
	struct inet_hashinfo *tables = tables_of(net);
	struct socket_netns *to;
	u32 used = asked->used;

	if (!all || used >= CGNET_NAMESPACES)
		return;
	barrier_var(used);
	used &= CGNET_NAMESPACES - 1;
	to = &all->found[used];
	/* A kernel 5.4 forgets the bounds of an index that is spilled, but not those of a pointer. */
	barrier_var(to);
	to->address = (u64)net;
	to->cookie = netns_cookie(false, net);
	to->inode = BPF_CORE_READ(net, ns.inum);
	to->ehash = (u64)BPF_CORE_READ(tables, ehash);
	to->lhash2 = (u64)BPF_CORE_READ(tables, lhash2);
	to->ehash_mask = BPF_CORE_READ(tables, ehash_mask);
	to->lhash2_mask = BPF_CORE_READ(tables, lhash2_mask);
	ports_of(net, to);
	asked->used = used + 1;
}

/* The list is a ring, and the namespace of the querying thread its first. */
static __always_inline void walk_namespaces(struct socket_query *asked)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	u64 list = bpf_core_field_offset(struct net, list);

	if (!asked->first)
		asked->first = asked->next = (u64)BPF_CORE_READ(task, nsproxy, net_ns);
	for (u32 i = 0; i < NAMESPACES; i++) {
		struct net *net = (struct net *)asked->next;

		if (asked->used >= CGNET_NAMESPACES || asked->bucket)
			return;
		if (is_namespace(net))
			tell_namespace(asked, net);
		asked->next = read_u64((u64)net + list) - list;
		asked->chain += 1;
		if (asked->next == asked->first) {
			asked->bucket = 1;
		} else if (asked->next + list == 0 || asked->chain > MAX_CHAIN) {
			asked->bucket =
				1; /* the next namespace has ended: those behind it are missed */
			asked->strayed += 1;
		}
	}
}

/* -- tables of sockets */

/*
 * Listeners were linked by a node of their own, in chains without numbers, until Linux kernel commit
 * cae3873c5b3a "net: inet: Retire port only listening_hash" (in v5.19).
 */
struct inet_connection_sock___before_v519 {
	struct hlist_node icsk_listen_portaddr_node;
} __attribute__((preserve_access_index));

struct inet_listen_hashbucket___before_v519 {
	struct hlist_head head;
} __attribute__((preserve_access_index));

static __always_inline bool has_listener_nodes(void)
{
	struct inet_connection_sock___before_v519 *icsk = NULL;

	return bpf_core_field_exists(icsk->icsk_listen_portaddr_node);
}

/* Offset of the chain's link in a socket. */
static __always_inline u64 offset_of_link(u32 table)
{
	if (table == WALK_LISTENERS && has_listener_nodes())
		return bpf_core_field_offset(struct inet_connection_sock___before_v519,
					     icsk_listen_portaddr_node);
	return bpf_core_field_offset(struct sock_common, skc_nulls_node);
}

static __always_inline u64 first_of_bucket(const struct socket_query *asked)
{
	u64 at = asked->buckets;

	if (asked->table == WALK_CONNECTIONS)
		return read_u64(at + (u64)asked->bucket * sizeof(u64));
	at += (u64)asked->bucket * bpf_core_type_size(struct inet_listen_hashbucket);
	if (has_listener_nodes())
		at += bpf_core_field_offset(struct inet_listen_hashbucket___before_v519, head);
	else
		at += bpf_core_field_offset(struct inet_listen_hashbucket, nulls_head.first);
	return read_u64(at);
}

#define IS_END(link) (!(link) || ((link) & 1))

/* A chain of connections ends with its number; another number: a socket was moved during the walk. */
static __always_inline void end_of_chain(struct socket_query *asked, u64 end)
{
	if (asked->table == WALK_CONNECTIONS && end >> 1 != asked->bucket)
		asked->strayed += 1;
	asked->bucket += 1;
	asked->next = 0;
	asked->chain = 0;
}

/* A chain without an end leads through memory that was freed between two runs. */
#define WALK_SOME(asked, steps, list_one)                                                       \
	({                                                                                      \
		u64 walk_offset = offset_of_link((asked)->table);                               \
		for (u32 step = 0; step < (steps); step++) {                                    \
			u64 link = (asked)->next;                                               \
			if ((asked)->bucket >= (asked)->count || (asked)->used >= CGNET_LISTED) \
				break;                                                          \
			if (!link)                                                              \
				link = first_of_bucket(asked);                                  \
			if (!IS_END(link)) {                                                    \
				list_one(link - walk_offset);                                   \
				link = read_u64(link);                                          \
				(asked)->chain += 1;                                            \
			}                                                                       \
			if (IS_END(link) || (asked)->chain > MAX_CHAIN)                         \
				end_of_chain(asked, link);                                      \
			else                                                                    \
				(asked)->next = link;                                           \
		}                                                                               \
	})

#endif
