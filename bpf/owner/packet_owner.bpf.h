/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Location and owner of a packet: by its socket, its network namespace, its veths, or its addresses. */
#ifndef CGNET_OWNER_PACKET_OWNER_BPF_H
#define CGNET_OWNER_PACKET_OWNER_BPF_H

#include "owner/open_sockets.bpf.h"
#include "owner/veth.bpf.h"
#include "abi/packet.h"

#define MIN_NETNS 0xe0000000 /* inodes of namespaces are greater (include/uapi/linux/nsfs.h) */

/* Containers by the addresses of their network namespaces; IPv4 in the first bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct device_address);
	__type(value, u64);
} address_owners SEC(".maps");

CROSSES_TO_USER_SPACE(device_address);
CONFIG(filter_config);
CONFIG(owner_config);

struct place {
	struct sk_buff *skb; /* NULL if its devices give no information */
	struct sock *sk;     /* full socket, or NULL */
	u64 cookie;	     /* of the namespace */
	u32 netns;	     /* inode */
	u32 ifindex;
	u8 tcp_state;
	u8 sent; /* 1: by the socket */
	char dev[CGNET_DEV_LEN];
};

static __always_inline void place_of_socket(struct sock *sk, struct place *place)
{
	place->tcp_state = READ(sk, __sk_common.skc_state);
	place->netns = netns_of(TYPED, sk);
	place->cookie = socket_netns_cookie(TYPED, sk);
	if (is_full(sk) && is_tcp(sk))
		place->sk = sk;
}

/*
 * A packet keeps its sender's socket until the receiver's IP layer has processed it, even in another
 * namespace: the device's namespace is the location.
 */
static __always_inline void place_of_device(struct sk_buff *skb, struct place *place)
{
	struct net_device *dev = READ(skb, dev);
	struct net *net;
	u32 inode;

	if (!dev)
		return;
	net = netns_of_device(dev);
	inode = net ? BPF_CORE_READ(net, ns.inum) : 0;
	if (inode < MIN_NETNS)
		return;
	place->netns = inode;
	place->cookie = netns_cookie(false, net);
	place->ifindex = BPF_CORE_READ(dev, ifindex);
	bpf_probe_read_kernel(place->dev, sizeof(place->dev), &dev->name);
}

/* At a tracepoint of a device, which the packet certainly has; does not read the device's name. */
static __always_inline void find_place_at_device(struct sk_buff *skb, struct place *place)
{
	struct sock *sk = READ(skb, sk);
	struct net_device *dev = READ(skb, dev);
	struct net *net;

	__builtin_memset(place, 0, sizeof(*place));
	place->skb = skb;
	place->sent = sk != NULL;
	if (sk)
		place_of_socket(sk, place);
	if (!dev)
		return;
	net = READ(dev, nd_net.net);
	place->netns = READ(net, ns.inum);
	place->cookie = netns_cookie(TYPED, net);
	place->ifindex = READ(dev, ifindex);
}

static __always_inline void find_place(struct sk_buff *skb, struct sock *rx_sk, struct place *place)
{
	struct sock *sk = READ(skb, sk);

	__builtin_memset(place, 0, sizeof(*place));
	place->skb = skb;
	place->sent = sk != NULL;
	if (sk)
		place_of_socket(sk, place);
	else if (rx_sk)
		place_of_socket(rx_sk, place);
	place_of_device(skb, place);
	if (!place->ifindex && rx_sk)
		place->ifindex = READ(skb, skb_iif);
}

static __always_inline u64 address_cgroup_id(const struct flow *flow, const u8 *address)
{
	struct device_address key = {.family = flow->family};
	u64 *found;

	__builtin_memcpy(key.address, address, sizeof(key.address));
	found = bpf_map_lookup_elem(&address_owners, &key);
	return found ? *found : 0;
}

/*
 * A packet in transit belongs to the container that sent it, else to its destination. The devices that it
 * passes are more reliable than its addresses.
 */
VERIFIED_ONCE int guess_by_way(u64 skb, const struct flow *flow, struct owner *owner)
{
	struct passage passage = {};

	if (!flow || !owner)
		return 0;
	if (skb)
		find_passage((struct sk_buff *)skb, &passage);
	owner->source = OWNER_DEVICE;
	owner->cgroup_id = veth_cgroup_id(passage.in);
	if (owner->cgroup_id)
		return 0;
	owner->source = OWNER_ADDRESS;
	owner->cgroup_id = address_cgroup_id(flow, flow->saddr);
	if (owner->cgroup_id)
		return 0;
	owner->source = OWNER_DEVICE;
	owner->cgroup_id = veth_cgroup_id(passage.out);
	if (owner->cgroup_id)
		return 0;
	owner->source = OWNER_ADDRESS;
	owner->cgroup_id = address_cgroup_id(flow, flow->daddr);
	return 0;
}

static __always_inline void guess_owner(const struct place *place, const struct flow *flow,
					struct holder *holder)
{
	struct owner *owner = &holder->owner;

	owner->hierarchy = owner_config.hierarchy[0].id;
	owner->source = OWNER_NETNS;
	owner->cgroup_id = netns_cgroup_id(place->netns, place->cookie);
	if (!owner->cgroup_id)
		guess_by_way(TYPED ? object_address(place->skb) : (u64)place->skb, flow, owner);
	if (!owner->cgroup_id)
		owner->source = OWNER_UNKNOWN;
	holder->wanted = owner->cgroup_id ? partial_owner_passes(owner) : unknown_owner_passes();
}

/* Owner of a socket that has no ledger entry. */
static __always_inline struct holder *holder_elsewhere(struct sock *sk, u8 state)
{
	struct holder *found;
	u64 inode;

	if (state == TCP_LISTEN) {
		inode = socket_inode(sk);
		found = holder_now(bpf_map_lookup_elem(&listening, &inode));
	} else {
		found = TYPED ? NULL : seed_of(sk);
	}
	return found && found->owner.source ? found : NULL;
}

struct sock_common___request {
	struct sock *skc_listener;
} __attribute__((preserve_access_index));

/* Owner of the listener of a request that is answered by a SYN-ACK: the sending socket is not a full one. */
static __always_inline struct holder *holder_of_request(const struct place *place)
{
	struct sock_common___request *request;
	struct sk_buff *skb = place->skb;
	struct sock *listener;

	if (place->sk || place->tcp_state != TCP_NEW_SYN_RECV || !skb)
		return NULL;
	request = (void *)BPF_CORE_READ(skb, sk);
	listener = BPF_CORE_READ(request, skc_listener);
	return listener ? holder_elsewhere(listener, TCP_LISTEN) : NULL;
}

/*
 * Find the owner of a packet; return the role of the socket's owner, 0 if unknown. Add nothing to the ledger:
 * the socket may be about to be freed.
 */
static __always_inline u8 whose_packet(const struct place *place, const struct flow *flow,
				       struct holder *holder)
{
	struct sock *sk = place->sk;
	struct ledger_entry *entry = sk ? ledger_find(TYPED, sk) : NULL;
	struct holder *seeded = holder_of_request(place);

	if (seeded) {
		*holder = *seeded;
		holder->owner.source = OWNER_INHERITED;
		return ROLE_SERVER;
	}
	if (entry && place->tcp_state != TCP_LISTEN) {
		*holder = *holder_of(entry);
	} else if (sk) {
		seeded = holder_elsewhere(sk, place->tcp_state);
		if (seeded)
			*holder = *seeded;
		else
			fall_back(sk, holder);
	}
	if (holder->owner.source == OWNER_UNKNOWN)
		guess_owner(place, flow, holder);
	return entry ? entry->role : 0;
}

static __always_inline bool packet_passes(const struct place *place, const struct flow *flow)
{
	if (filter_config.by_netns && !netns_passes(place->netns, place->cookie))
		return false;
	return ends_pass(flow);
}

#endif
