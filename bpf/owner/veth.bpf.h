/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Owner of a veth, for packets in transit: the owner of the network namespace at its other end. Unlike an
 * address, it cannot be forged, and is known as soon as the veth exists.
 */
#ifndef CGNET_OWNER_VETH_BPF_H
#define CGNET_OWNER_VETH_BPF_H

#include "owner/guess.bpf.h"

#define NETDEV_ALIGN 32	       /* include/linux/netdevice.h: alignment of a driver's own part */
#define DEVICE_HASHES 256      /* include/linux/netdevice.h: NETDEV_HASHENTRIES */
#define DEVICES_OF_A_HASH 16   /* limit on the devices examined */
#define DST_IS_NOT_COUNTED 1UL /* include/linux/skbuff.h: SKB_DST_NOREF */

/* Devices at which a packet enters and leaves its namespace; NULL if unknown. */
struct passage {
	struct net_device *in;
	struct net_device *out;
};

/*
 * skb->dev shares its memory with a node of the trees in which TCP queues packets. It points to a device if
 * that has a namespace whose loopback device is in the same namespace.
 */
static __always_inline struct net *netns_of_device(struct net_device *dev)
{
	struct net *net = (struct net *)BPF_CORE_READ(dev, nd_net.net);
	struct net *same = (struct net *)BPF_CORE_READ(net, loopback_dev, nd_net.net);

	return net == same ? net : NULL;
}

static __always_inline bool is_veth(struct net_device *dev)
{
	const struct rtnl_link_ops *ops = BPF_CORE_READ(dev, rtnl_link_ops);
	char name[8] = {};

	if (!ops) /* hardware device, or loopback */
		return false;
	bpf_probe_read_kernel(name, sizeof("veth"), BPF_CORE_READ(ops, kind));
	return name[0] == 'v' && name[1] == 'e' && name[2] == 't' && name[3] == 'h' && !name[4];
}

/* The peer of a veth, the first member of struct veth_priv, whose BTF a module may have: drivers/net/veth.c. */
static __always_inline struct net_device *first_of_private(struct net_device *dev)
{
	u64 size = bpf_core_type_size(struct net_device);
	struct net_device *first = NULL;

	size = (size + NETDEV_ALIGN - 1) & ~(NETDEV_ALIGN - 1ULL);
	bpf_probe_read_kernel(&first, sizeof(first), (void *)dev + size);
	return first;
}

/* Peer of a veth, checked by that device's own peer; else NULL. */
static __always_inline struct net_device *veth_peer(struct net_device *dev)
{
	struct net_device *peer;

	if (!dev || !is_veth(dev))
		return NULL;
	peer = first_of_private(dev);
	return peer && first_of_private(peer) == dev ? peer : NULL;
}

static __always_inline u64 veth_cgroup_id(struct net_device *dev)
{
	struct net_device *peer = veth_peer(dev);
	struct net *net = peer ? netns_of_device(peer) : NULL;

	return net ? netns_cgroup_id(BPF_CORE_READ(net, ns.inum), netns_cookie(false, net)) : 0;
}

/* Device with an index in a namespace; NULL also if too many devices share the hash of the index. */
static __always_inline struct net_device *device_of(struct net *net, u32 ifindex)
{
	struct hlist_head *heads = BPF_CORE_READ(net, dev_index_head);
	struct hlist_node *node = BPF_CORE_READ(&heads[ifindex & (DEVICE_HASHES - 1)], first);
	struct net_device *dev;

	for (u32 i = 0; i < DEVICES_OF_A_HASH && node; i++) {
		dev = (void *)node - bpf_core_field_offset(struct net_device, index_hlist);
		if ((u32)BPF_CORE_READ(dev, ifindex) == ifindex)
			return dev;
		node = BPF_CORE_READ(node, next);
	}
	return NULL;
}

/* Device of a packet's route; NULL if the packet has none. */
static __always_inline struct net_device *device_of_route(struct sk_buff *skb)
{
	struct dst_entry *dst = (void *)(BPF_CORE_READ(skb, _skb_refdst) & ~DST_IS_NOT_COUNTED);

	return dst ? BPF_CORE_READ(dst, dev) : NULL;
}

/* A packet sent from here has no input device: it has a route, and no receiving device. */
static __always_inline void find_passage(struct sk_buff *skb, struct passage *passage)
{
	struct net_device *dev = BPF_CORE_READ(skb, dev), *route = device_of_route(skb);
	u32 received = BPF_CORE_READ(skb, skb_iif);
	struct net *net;

	passage->out = route ?: dev;
	net = passage->out ? netns_of_device(passage->out) : NULL;
	if (!net)
		passage->out = NULL;
	if (!received)
		passage->in = route ? NULL : passage->out;
	else if (dev && (u32)BPF_CORE_READ(dev, ifindex) == received)
		passage->in = dev;
	else
		passage->in = net ? device_of(net, received) : NULL;
}

#endif
