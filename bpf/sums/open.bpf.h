/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Iterators that add the traffic of open connections to the sums: user space runs them before each read. The first
 * run records the baseline of connections from before the start.
 */
#ifndef CGNET_SUMS_OPEN_BPF_H
#define CGNET_SUMS_OPEN_BPF_H

#include "session/private.bpf.h"
#include "sums/owner_sums.bpf.h"
#include "drop/accept_queues.bpf.h"
#include "life/living.bpf.h"

#if TYPED
static __always_inline void base_sums(struct sums_private *sums, const struct life *life)
{
	sums->tx_bytes = life->tx_bytes;
	sums->rx_bytes = life->rx_bytes;
	sums->tx_segs = life->tx_segs;
	sums->rx_segs = life->rx_segs;
	if (life->busy_ticks != ~0U) {
		sums->busy_ticks = life->busy_ticks;
		sums->rwnd_ticks = life->rwnd_ticks;
		sums->sndbuf_ticks = life->sndbuf_ticks;
	}
}

/* Iterators run one after the other: no other program writes these. */
VERIFIED_ONCE int add_queue(u64 cgroup_id, u32 queue, u32 limit, u32 drops)
{
	struct owner_sums *sums = sums_of_owner(cgroup_id);

	if (!sums || (sums->queue_limit &&
		      (u64)queue * (sums->queue_limit + 1ULL) <= (u64)sums->queue * (limit + 1ULL)))
		return 0;
	sums->queue = queue;
	sums->queue_limit = limit;
	sums->queue_drops = drops;
	return 0;
}

static __always_inline void sum_queue(struct sock *sk, const struct owner *owner)
{
	if (sums_up(SIGNAL_QUEUES))
		add_queue(owner->cgroup_id, BPF_CORE_READ(sk, sk_ack_backlog),
			  BPF_CORE_READ(sk, sk_max_ack_backlog), drops_of(sk));
}

static __always_inline void sum_traffic(struct sock *sk, struct ledger_entry *entry, u32 state,
					const struct owner *owner)
{
	struct sums_private *mine = &entry->private.sums;
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct life life = {};
	struct flow flow;

	flow_of_sock(false, sk, tp, &flow);
	if (!flow_passes(false, sk, &flow))
		return;
	life_so_far(false, bpf_ktime_get_ns(), sk, tp, entry, state, &life);
	if (mine->state == SUMS_UNTOLD) {
		if (!entry->private.life.established_ns)
			base_sums(mine, &life);
		__sync_val_compare_and_swap(&mine->state, SUMS_UNTOLD, SUMS_TOLD);
	}
	if (mine->state == SUMS_TOLD)
		add_growth(owner->cgroup_id, mine, &life);
}

static __always_inline void sum_open(struct sock *sk, struct ledger_entry *entry)
{
	u32 state = BPF_CORE_READ(sk, __sk_common.skc_state);
	struct holder holder;

	/* Iterators over maps may not load at a variable offset of an element. */
	if (bpf_probe_read_kernel(&holder, sizeof(holder), holder_of(entry)))
		return;
	if (!holder.wanted || entry->private.life.ended)
		return;
	if (state == TCP_LISTEN)
		sum_queue(sk, &holder.owner);
	else if (sums_up(SIGNAL_LIFE) && !entry->listens && is_open(state) &&
		 role_passes(entry->role))
		sum_traffic(sk, entry, state, &holder.owner);
}

SEC("iter/bpf_sk_storage_map")
int open_stored(struct storage_of_socket *ctx)
{
	struct ledger_entry *entry = ctx->entry;
	struct sock *sk = ctx->sk;

	if (sk && entry)
		sum_open(sk, entry);
	return 0;
}

/* Fallback if the kernel refuses iterators over maps. */
SEC("iter/task_file")
int open_files(struct task_file *ctx)
{
	struct sock *sk = tcp_socket_of_file(ctx);
	struct ledger_entry *entry;

	if (!sk)
		return 0;
	entry = ledger_find(TYPED, sk);
	if (!entry || is_told(ctx, entry))
		return 0;
	is_told_now(ctx, entry);
	sum_open(sk, entry);
	return 0;
}

SEC("iter/bpf_map_elem")
int open_slots(struct slot_of_socket *ctx)
{
	struct ledger_slot *slot = ctx->slot;

	if (slot && slot->address > SLOT_IS_TAKEN && !slot->gone)
		sum_open((struct sock *)slot->address, &slot->entry);
	return 0;
}
#endif

#endif
