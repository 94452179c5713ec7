/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sockets in SYN_SENT, for SYNs that are dropped without their sender's socket: over loopback at a closed port,
 * and in the namespaces that they pass. The socket has the addresses and ports of the packet.
 */
#ifndef CGNET_DROP_SYN_SENDERS_BPF_H
#define CGNET_DROP_SYN_SENDERS_BPF_H

#include "base/packet.bpf.h"
#include "owner/all_sockets.bpf.h"

#define SENDER_SETS 256
#define SENDER_WAYS 8

/*
 * Set-associative cache of socket addresses, by destination: the source port is not chosen yet when a socket
 * enters SYN_SENT. Concurrent writes of two CPUs may lose one in raw programs; a match is checked against the
 * socket.
 */
struct sender_set {
	u64 sockets[SENDER_WAYS];
	u32 next;
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SENDER_SETS);
	__type(key, u32);
	__type(value, struct sender_set);
} syn_senders SEC(".maps");

/*
 * Cgroups in containers, also those that no namespace is known of yet, and new ones until user space has seen
 * their paths.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, u64);
	__type(value, u8);
} container_cgroups SEC(".maps");

static __always_inline void on_new_cgroup(u64 id)
{
	u8 value = 0;

	bpf_map_update_elem(&container_cgroups, &id, &value, BPF_ANY);
}
#define ON_NEW_CGROUP on_new_cgroup

static __always_inline struct sender_set *sender_set_at(u32 daddr, u16 dport)
{
	u32 index = ((daddr * 31 + dport) * 2654435761U >> 16) % SENDER_SETS;

	return bpf_map_lookup_elem(&syn_senders, &index);
}

static __always_inline struct sender_set *sender_set_of(const struct flow *flow)
{
	return sender_set_at(((const u32 *)flow->daddr)[flow->family == 4 ? 0 : 3], flow->dport);
}

static __always_inline void remember_sender(struct sock *sk)
{
	u32 daddr = READ(sk, __sk_common.skc_family) == AF_INET
			    ? READ(sk, __sk_common.skc_daddr)
			    : READ(sk, __sk_common.skc_v6_daddr.in6_u.u6_addr32[3]);
	struct sender_set *set;
	u32 at;

	set = sender_set_at(daddr, bpf_ntohs(READ(sk, __sk_common.skc_dport)));
	if (!set)
		return;
	at = TYPED ? __sync_fetch_and_add(&set->next, 1) : set->next++;
	set->sockets[at % SENDER_WAYS] = (u64)sk;
}

#define SAME_WORD(sk, field, i, address) \
	(BPF_CORE_READ(sk, __sk_common.field.in6_u.u6_addr32[i]) == ((const u32 *)(address))[i])
#define SAME_ADDRESS(sk, field, address)                                         \
	(SAME_WORD(sk, field, 0, address) && SAME_WORD(sk, field, 1, address) && \
	 SAME_WORD(sk, field, 2, address) && SAME_WORD(sk, field, 3, address))

/* Whether a socket sent a SYN; the values of a freed one match no packet. Word by word: stacks are nearly full. */
OUT_OF_LINE int has_sent(u64 address, const struct flow *flow)
{
	struct sock *sk = (struct sock *)address;
	struct inet_sock *inet = (struct inet_sock *)sk;

	if (!flow || BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_SYN_SENT ||
	    BPF_CORE_READ(inet, inet_sport) != bpf_htons(flow->sport) ||
	    BPF_CORE_READ(sk, __sk_common.skc_dport) != bpf_htons(flow->dport))
		return false;
	if (flow->family == 4)
		return BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr) == *(const u32 *)flow->saddr &&
		       BPF_CORE_READ(sk, __sk_common.skc_daddr) == *(const u32 *)flow->daddr;
	return SAME_ADDRESS(sk, skc_v6_rcv_saddr, flow->saddr) &&
	       SAME_ADDRESS(sk, skc_v6_daddr, flow->daddr);
}

/* Entry of a socket without a typed pointer; NULL if it is in storage. */
static __always_inline struct ledger_entry *ledger_at(u64 address)
{
	if (!TYPED)
		return bpf_map_lookup_elem(&ledger_hash, &address);
	for (u32 way = 0; way < LEDGER_WAYS; way++) {
		struct ledger_slot *slot = ledger_slot_at(address, way);

		if (slot && slot->address == address && !slot->gone)
			return &slot->entry;
	}
	return NULL;
}

/* Entry of the sender of a SYN that was dropped in its sender's namespace, or NULL. */
static __always_inline struct ledger_entry *sender_of_syn(const struct flow *flow)
{
	struct sender_set *set = sender_set_of(flow);

	if (!set)
		return NULL;
	for (u32 way = 0; way < SENDER_WAYS; way++) {
		u64 address = set->sockets[way];

		if (address && netns_of(false, (struct sock *)address) == flow->netns &&
		    has_sent(address, flow))
			return ledger_at(address);
	}
	return NULL;
}

/* Entry of the sender of a SYN that is on its way; NULL also if two sockets have its addresses and ports. */
static __always_inline struct ledger_entry *far_sender_of_syn(const struct flow *flow)
{
	struct sender_set *set = sender_set_of(flow);
	u64 found = 0;

	if (!set)
		return NULL;
	for (u32 way = 0; way < SENDER_WAYS; way++) {
		u64 address = set->sockets[way];

		if (!address || address == found || !has_sent(address, flow))
			continue;
		if (found)
			return NULL;
		found = address;
	}
	return found ? ledger_at(found) : NULL;
}

#endif
