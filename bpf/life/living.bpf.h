/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Open connections: user space runs these programs when it prints. An iterator returns its records by its file:
 * they take no room of the ring, however many there are.
 */
#ifndef CGNET_LIFE_LIVING_BPF_H
#define CGNET_LIFE_LIVING_BPF_H

#include "life/ends.bpf.h"
#if !TYPED
#include "owner/socket_query.bpf.h"
#endif

static __always_inline bool is_open(u32 state)
{
	return state != TCP_CLOSE && was_open(state);
}

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct life_event);
} living_record SEC(".maps");

/* Return false if the iterator's file is full. */
static __always_inline bool write_life(void *seq, u64 now, const struct owner *owner,
				       const struct flow *flow, const struct life *life,
				       const struct identity *identity)
{
	struct life_event *event = bpf_map_lookup_elem(&living_record, &(u32){0});

	if (!event)
		return true;
	event->head.kind = RECORD_LIFE;
	event->head.ts_ns = now;
	fill_life(event, owner, flow, life, identity);
	return !bpf_seq_write(seq, event, sizeof(*event));
}

/*
 * Report a connection to an iterator's file, or to the ring if there is none. Return false if the file is full:
 * the kernel empties it, and runs the program for the connection again.
 */
static __always_inline bool tell_living(void *seq, struct sock *sk, struct ledger_entry *entry)
{
	u32 state = BPF_CORE_READ(sk, __sk_common.skc_state);
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	u64 now = bpf_ktime_get_ns();
	struct identity identity;
	struct life life = {};
	struct holder holder;
	struct flow flow;

	/* Iterators over maps may not load at a variable offset of an element. */
	if (bpf_probe_read_kernel(&holder, sizeof(holder), holder_of(entry)))
		return true;
	if (entry->private.life.ended || entry->listens || !holder.wanted ||
	    !role_passes(entry->role))
		return true;
	if (!is_open(state))
		return true;
	flow_of_sock(false, sk, tp, &flow);
	if (!flow_passes(false, sk, &flow))
		return true;
	life_so_far(false, now, sk, tp, entry, state, &life);
	identity_in_life(false, tp, entry, &identity);
	if (!life_passes(&life))
		return true;
	if (seq ? !write_life(seq, now, &holder.owner, &flow, &life, &identity)
		: !emit_life(now, &holder.owner, &flow, &life, &identity))
		return false;
	told(&entry->private.life, &life);
	return true;
}

#if TYPED
struct storage_of_socket {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	struct ledger_entry *entry;
};

SEC("iter/bpf_sk_storage_map")
int living(struct storage_of_socket *ctx)
{
	struct ledger_entry *entry = ctx->entry;
	struct sock *sk = ctx->sk;

	if (sk && entry)
		tell_living(ctx->meta->seq, sk, entry);
	return 0;
}

struct slot_of_socket {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	u32 *index;
	struct ledger_slot *slot;
};

SEC("iter/bpf_map_elem")
int living_slots(struct slot_of_socket *ctx)
{
	struct ledger_slot *slot = ctx->slot;

	if (slot && slot->address > SLOT_IS_TAKEN && !slot->gone)
		tell_living(ctx->meta->seq, (struct sock *)slot->address, &slot->entry);
	return 0;
}

/*
 * Fallback if the kernel refuses iterators over maps: the files of processes, in all namespaces. No process
 * has sockets that are closed and still send, or that wait for accept().
 */
/* The TCP socket of a file that is open, or NULL. */
static __always_inline struct sock *tcp_socket_of_file(struct task_file *ctx)
{
	struct socket *socket;
	struct sock *sk;

	if (!ctx->task || !ctx->file)
		return NULL;
	socket = bpf_sock_from_file(ctx->file);
	if (!socket)
		return NULL;
	sk = socket->sk;
	return sk && sk->__sk_common.skc_state != TCP_CLOSE && is_tcp(sk) ? sk : NULL;
}

/* Several files may share a socket: a run of the iterator tells it once. */
static __always_inline bool is_told(struct task_file *ctx, const struct ledger_entry *entry)
{
	return entry->private.life.shown == (u32)ctx->meta->session_id;
}

static __always_inline void is_told_now(struct task_file *ctx, struct ledger_entry *entry)
{
	entry->private.life.shown = ctx->meta->session_id;
}

SEC("iter/task_file")
int living_files(struct task_file *ctx)
{
	struct sock *sk = tcp_socket_of_file(ctx);
	struct ledger_entry *entry;

	if (!sk)
		return 0;
	entry = ledger_find(TYPED, sk);
	if (entry && !is_told(ctx, entry) && tell_living(ctx->meta->seq, sk, entry))
		is_told_now(ctx, entry);
	return 0;
}

#else
struct element {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	u64 *address;
	struct ledger_entry *entry;
};

SEC("iter/bpf_map_elem")
int living(struct element *ctx)
{
	struct ledger_entry *entry = ctx->entry;
	u64 *address = ctx->address;

	if (address && entry)
		tell_living(ctx->meta->seq, (struct sock *)*address, entry);
	return 0;
}

/* Add a socket that a process has had open since before the start to the ledger; report one that is there. */
static __always_inline int on_question(const char *name)
{
	struct question *asked = question_of(name);
	struct ledger_entry *entry;
	struct sock *sk;

	if (!asked)
		return 0;
	if (!asked->address) {
		sk = socket_of(asked);
		if (sk && is_tcp(sk) && is_open(BPF_CORE_READ(sk, __sk_common.skc_state)))
			ledger_of(false, sk);
		return 0;
	}
	sk = (struct sock *)asked->address;
	entry = ledger_find(TYPED, sk);
	if (entry)
		tell_living(NULL, sk, entry);
	return 0;
}

SEC("raw_tp/task_rename")
int BPF_PROG(living_asked, struct task_struct *task, const char *name)
{
	return WITH_PERF_FLUSH(ctx, on_question(name));
}
#endif

#endif
