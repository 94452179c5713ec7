/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Open connections: user space runs these programs when it prints. */
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

static __always_inline void tell_living(struct sock *sk, struct ledger_entry *entry)
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
		return;
	if (entry->private.life.ended || entry->listens || !holder.wanted ||
	    !role_passes(entry->role))
		return;
	if (!is_open(state))
		return;
	flow_of_sock(false, sk, tp, &flow);
	if (!flow_passes(false, sk, &flow))
		return;
	life_so_far(false, now, sk, tp, entry, state, &life);
	identity_in_life(false, tp, entry, &identity);
	if (emit_life(now, &holder.owner, &flow, &life, &identity))
		told(&entry->private.life, &life);
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
		tell_living(sk, entry);
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
		tell_living((struct sock *)slot->address, &slot->entry);
	return 0;
}

/*
 * Fallback if the kernel refuses iterators over maps: the files of processes, in all namespaces. No process
 * has sockets that are closed and still send, or that wait for accept().
 */
struct bpf_iter_meta___session {
	u64 session_id;
} __attribute__((preserve_access_index));

SEC("iter/task_file")
int living_files(struct task_file *ctx)
{
	struct bpf_iter_meta___session *meta = (void *)ctx->meta;
	struct ledger_entry *entry;
	struct socket *socket;
	struct sock *sk;
	u32 look;

	if (!ctx->task || !ctx->file)
		return 0;
	socket = bpf_sock_from_file(ctx->file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || sk->__sk_common.skc_state == TCP_CLOSE || !is_tcp(sk))
		return 0;
	entry = ledger_find(TYPED, sk);
	look = meta->session_id;
	if (!entry || entry->private.life.shown == look)
		return 0;
	entry->private.life.shown = look;
	tell_living(sk, entry);
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
		return WITH_PERF_FLUSH(ctx, (tell_living((struct sock *)*address, entry), 0));
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
		tell_living(sk, entry);
	return 0;
}

SEC("raw_tp/task_rename")
int BPF_PROG(living_asked, struct task_struct *task, const char *name)
{
	return WITH_PERF_FLUSH(ctx, on_question(name));
}
#endif

#endif
