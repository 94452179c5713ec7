// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Connections, from establishment to their end. A record is made at TCP_CLOSE, which comes once: later the
 * socket is cleared, or connects again.
 */
#include "base/flow.bpf.h"
#define KEEPS_LIVES
#include "life/private.bpf.h"
#include "peer/ledger_end.bpf.h"
#define ON_NEW_READER(sk, entry) reader_is_learnt(sk, entry)
#include "owner/all_sockets.bpf.h"
#include "life/close_cause.bpf.h"
#include "life/pending_rows.bpf.h"
#include "filter/cgroup_events.bpf.h"
#include "count/count.bpf.h"
#if !TYPED
#include "owner/socket_query.bpf.h"
#endif

/* -- the end */

static __always_inline void end(struct sock *sk, struct ledger_entry *entry, int state)
{
	struct tcp_sock *tp = tcp_sock_of(sk);
	struct ledger_private *mine;
	u64 now = bpf_ktime_get_ns();
	const struct holder *holder;
	struct waiting_row row = {};
	u32 ending;

	if (!tp)
		return;
	mine = &entry->private;
	if (mine->ended)
		return;
	mine->ended = 1;
	holder = holder_of(entry);
	if (!holder->wanted || !role_passes(entry->role))
		return;
	flow_of_sock(TYPED, sk, tp, &row.flow);
	if (!flow_passes(TYPED, sk, &row.flow))
		return;
	life_so_far(TYPED, now, sk, tp, entry, state, &row.life);
	identity_in_life(TYPED, tp, entry, &row.identity);
	FORGET(state, now);
	ending = how_it_ended(sk, state, mine->reset_received, &holder->owner);
	FORGET(ending, now);
	row.life.closed_by = ending;
	row.life.close_cause = ending >> 8;
	row.life.rst_reason = mine->rst_reason;
	if (TYPED && mine->reset_received == RESET_FOR_LATE_DATA)
		row.life.rst_reason = reason_of_late_data();
	else if (TYPED && can_wait(sk, &holder->owner, &row))
		return;
	emit_life(now, &holder->owner, &row.flow, &row.life, &row.identity);
}

/* -- before the end */

static __always_inline void established(struct sock *sk, struct ledger_entry *entry)
{
	struct tcp_sock *tp = tcp_sock_of(sk);
	u64 now = bpf_ktime_get_ns();

	if (!tp)
		return;
	entry->private.established_ns = now;
	entry->restored = is_restored(TYPED, tp);
	ledger_end_is_made(now, tp, entry);
	if (entry->private.begun_ns)
		entry->private.handshake_ns = now - entry->private.begun_ns;
	else
		entry->private.handshake_ns = (u64)(READ(tp, srtt_us) >> 3) * NSEC_PER_USEC;
}

static __always_inline void closes(struct sock *sk, struct ledger_entry *entry)
{
	struct tcp_sock *tp = tcp_sock_of(sk);

	if (!tp)
		return;
	entry->private.data_segs_at_fin = READ(tp, data_segs_in);
	entry->private.bytes_at_fin = READ(tp, bytes_received);
}

static __always_inline bool was_open(int state)
{
	return state != TCP_SYN_SENT && state != TCP_SYN_RECV && state != TCP_LISTEN;
}

/* The application closes: its last event. */
static __always_inline bool is_closing(int state)
{
	return state == TCP_FIN_WAIT1 || state == TCP_LAST_ACK;
}

static __always_inline bool is_known(struct sock *sk)
{
	struct ledger_entry *entry = ledger_find(TYPED, sk);

	return entry && !entry->listens && entry->private.established_ns;
}

static __always_inline void on_change(struct sock *sk, int oldstate, int newstate)
{
	struct ledger_entry *entry;
	u64 unknown;

	entry = ledger_on_state(sk, oldstate, newstate);
	if (newstate == TCP_SYN_SENT) {
		if (entry)
			entry->private.begun_ns = bpf_ktime_get_ns();
		return;
	}
	if (oldstate == TCP_LISTEN ||
	    (newstate == TCP_CLOSE ? !was_open(oldstate)
				   : newstate != TCP_ESTABLISHED && !is_closing(newstate)))
		return;
	unknown = TYPED ? sk->__sk_common.skc_hash : (u64)sk;
	FORGET(oldstate, unknown);
	FORGET(newstate, unknown);
	if (!entry || entry->whole <= 1 << RANK_GUESSED)
		entry = ledger_of(is_closing(newstate), sk);
	if (!entry)
		return;
	if (newstate == TCP_ESTABLISHED)
		established(sk, entry);
	else if (is_closing(newstate))
		closes(sk, entry);
	else
		end(sk, entry, oldstate);
}

static __always_inline void on_first(struct sock *sk, int oldstate, int newstate)
{
	if (TYPED && newstate == TCP_SYN_SENT)
		end_waiting(sk, 0);
	on_change(sk, oldstate, newstate);
}

/* Softirq events that the first program missed: a connection begins and ends once. */
static __always_inline void on_second(struct sock *sk, int oldstate, int newstate)
{
	if (newstate == TCP_CLOSE || !is_known(sk))
		on_change(sk, oldstate, newstate);
}

static __always_inline int on_set_state(const bool first, struct sock *sk, int oldstate,
					int newstate)
{
	bool twice = newstate == TCP_ESTABLISHED || (newstate == TCP_CLOSE && was_open(oldstate));

	if ((!first && !twice) || !is_tcp(sk))
		return 0;
	if (first)
		on_first(sk, oldstate, newstate);
	if (twice && !is_done(first, sk) && !first)
		on_second(sk, oldstate, newstate);
	return 0;
}

SET_STATE_PROGRAMS(state, on_set_state)

static __always_inline int on_receive_reset(struct sock *sk)
{
	struct ledger_entry *entry = ledger_of(true, sk);
	struct tcp_sock *tp = tcp_sock_of(sk);

	if (!entry || !tp)
		return 0;
	if (data_came_late(sk, tp, entry->private.data_segs_at_fin, entry->private.bytes_at_fin))
		entry->private.reset_received = RESET_FOR_LATE_DATA;
	else
		entry->private.reset_received = RESET_OF_PEER;
	return 0;
}

TRACEPOINT_PROGRAM(receive_reset, tcp_receive_reset, WITH(struct sock *sk), on_receive_reset(sk))

#if TYPED
/* Fires before the end for a time-out, after it for an abort; there may be no socket, or not a full one. */
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(send_reset, struct sock *sk)
{
	struct ledger_entry *entry;
	u32 reason = 0;

	if (!sk || !is_full(sk))
		return 0;
	if (tells_rst_reason())
		reason = ctx[2] + 1;
	end_waiting(sk, reason);
	entry = ledger_find(TYPED, sk);
	if (!entry)
		return 0;
	entry->private.rst_reason = reason;
	return 0;
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(destroy, struct sock *sk)
{
	end_waiting(sk, 0); /* last chance to report it */
	return 0;
}
#endif

/* -- open connections: user space runs these programs when it prints */

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
	if (entry->private.ended || entry->listens || !holder.wanted || !role_passes(entry->role))
		return;
	if (!is_open(state))
		return;
	flow_of_sock(false, sk, tp, &flow);
	if (!flow_passes(false, sk, &flow))
		return;
	life_so_far(false, now, sk, tp, entry, state, &life);
	identity_in_life(false, tp, entry, &identity);
	if (emit_life(now, &holder.owner, &flow, &life, &identity))
		told(&entry->private, &life);
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
	if (!entry || entry->private.shown == look)
		return 0;
	entry->private.shown = look;
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

char LICENSE[] SEC("license") = "Dual BSD/GPL";
