/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Maps of a listing, and what user space and the programs say to each other. Counterpart of
 * src/cgnet/owners/socket_walk.py.
 */
#ifndef CGNET_SOCKETS_QUERY_BPF_H
#define CGNET_SOCKETS_QUERY_BPF_H

#include "base/task.bpf.h"
#include "filter/filter.bpf.h"

#include "abi/sockets.h"

CROSSES_TO_USER_SPACE(socket_event);
CROSSES_TO_USER_SPACE(socket_netns);
CROSSES_TO_USER_SPACE(socket_query);
CROSSES_TO_USER_SPACE(held_socket);
CROSSES_TO_USER_SPACE(sharer_key);
CROSSES_TO_USER_SPACE(port_key);
CROSSES_TO_USER_SPACE(port_owner);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct socket_query);
} query SEC(".maps");

struct listed_sockets {
	struct socket_event records[CGNET_LISTED];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct listed_sockets);
} listed SEC(".maps");

struct namespaces {
	struct socket_netns found[CGNET_NAMESPACES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct namespaces);
} namespaces SEC(".maps");

/*
 * Sockets that processes have open. Preallocated: kernels before 6.1 warn when a tracing program allocates
 * hash entries. User space chooses the sizes by the number of open files.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, u64);
	__type(value, struct held_socket);
} held SEC(".maps");

/* All processes that have a socket open, where there are several. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct sharer_key);
	__type(value, struct owner);
} sharers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct port_key);
	__type(value, struct port_owner);
} port_owners SEC(".maps");

/* Entries that found no room: of `held`, `sharers`, `port_owners`, and `watched_listeners`. */
enum no_room {
	NO_ROOM_HELD = 0,
	NO_ROOM_SHARERS = 1,
	NO_ROOM_PORTS = 2,
	NO_ROOM_QUEUES = 3,
	NO_ROOM_COUNT = 4,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NO_ROOM_COUNT);
	__type(key, u32);
	__type(value, u64);
} no_room SEC(".maps");

static __always_inline void count_no_room(u32 where)
{
	u64 *count = bpf_map_lookup_elem(&no_room, &where);

	if (count)
		*count += 1;
}

static __always_inline struct socket_query *current_query(void)
{
	return bpf_map_lookup_elem(&query, &(u32){0});
}

static __always_inline struct held_socket *held_now(const struct socket_query *asked, u64 inode)
{
	struct held_socket *found = inode ? bpf_map_lookup_elem(&held, &inode) : NULL;

	return found && found->listing == asked->listing ? found : NULL;
}

static __always_inline u64 read_u64(u64 address)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

#endif
