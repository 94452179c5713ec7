/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connections that are accepted. They are established in softirq, where the owner isn't: they have their
 * listener's, learnt when it began to listen.
 *
 * With socket storage the kernel hands the entry from listener to child (BPF_F_CLONE), and frees it
 * with the socket. Storage is for tracing programs since Linux kernel commit 8e4597c627fb "bpf: Allow
 * using bpf_sk_storage in FENTRY/FEXIT/RAW_TP" (in v5.11). Programs without it look the listener up by
 * its address and port.
 */
#ifndef CGNET_INBOUND_BPF_H
#define CGNET_INBOUND_BPF_H

#include "connection.bpf.h"

CROSSES_TO_USER_SPACE(listening);
CROSSES_TO_USER_SPACE(listener_key);

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct listening);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct listener_key);
	__type(value, struct listening);
} listeners SEC(".maps");

/*
 * -- whose listener
 *
 * src/cgnet/listeners.py writes those that were open before into the map `listeners`, in the same way.
 */

static __always_inline void key_of_listener(struct sock *sk, struct listener_key *key)
{
	u32 *words = (u32 *)key->address;
	struct inet_sock *inet = (struct inet_sock *)sk;

	key->netns = netns_of(false, sk);
	key->port = bpf_ntohs(BPF_CORE_READ(inet, inet_sport)); /* skc_num is 0 at TCP_CLOSE */
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6) {
		BPF_CORE_READ_INTO(key->address, sk, __sk_common.skc_v6_rcv_saddr);
	} else {
		words[3] = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		if (words[3])
			words[2] = bpf_htonl(0xffff);
	}
}

static __always_inline bool same_owner(const struct owner *one, const struct owner *other)
{
	return one->cgroup_id == other->cgroup_id && one->pid == other->pid;
}

/* Several may listen there (SO_REUSEPORT): of different owners, none is known to be a child's. */
static __always_inline void remember_by_address(struct sock *sk, struct listening *mine)
{
	struct listener_key key = {};
	struct listening *known;

	key_of_listener(sk, &key);
	if (!key.port) /* it was not bound, and is given one later */
		return;
	mine->sockets = 1;
	known = bpf_map_lookup_elem(&listeners, &key);
	if (known) {
		mine->sockets = known->sockets + 1;
		if (!same_owner(&known->owner, &mine->owner)) {
			__builtin_memset(&mine->owner, 0, sizeof(mine->owner));
			mine->wanted = unknown_owner_passes();
		}
	}
	if (bpf_map_update_elem(&listeners, &key, mine, BPF_ANY))
		count_lost(LOST_LEDGER);
}

static __always_inline void forget_by_address(struct sock *sk)
{
	struct listener_key key = {};
	struct listening *known;

	key_of_listener(sk, &key);
	known = bpf_map_lookup_elem(&listeners, &key);
	if (!known)
		return;
	if (known->sockets > 1)
		known->sockets--;
	else
		bpf_map_delete_elem(&listeners, &key);
}

static __always_inline struct listening *listener_by_address(struct sock *child)
{
	struct listener_key key = {};
	struct listening *found;

	key_of_listener(child, &key);
	found = bpf_map_lookup_elem(&listeners, &key);
	if (found)
		return found;
	__builtin_memset(key.address, 0, sizeof(key.address));
	return bpf_map_lookup_elem(&listeners, &key);
}

/* Runs in the process that listens. */
static __always_inline void learn_listener(const bool typed, struct sock *sk)
{
	struct task_struct *task = current_task(typed);
	struct listening mine = {};

	if (READ_BITFIELD(sk, sk_protocol) != IPPROTO_TCP)
		return;
	learn(typed, task, &mine.owner);
	mine.wanted = owner_passes(typed, task, &mine.owner);
	if (!typed)
		remember_by_address(sk, &mine);
	else if (!bpf_sk_storage_get(&owners, sk, &mine, BPF_SK_STORAGE_GET_F_CREATE))
		count_lost(LOST_LEDGER);
}

/*
 * Listeners that were open before: each process's files are looked at once, after the hooks are
 * attached. Blanks only are filled in. MPTCP's listener is the first subflow of the file's socket.
 */
struct seeds {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

SEC("iter/task_file")
int server_seed(struct seeds *ctx)
{
	struct task_struct *task = ctx->task;
	struct listening mine = {};
	struct socket *socket;
	struct sock *sk;

	if (!task || !ctx->file)
		return 0;
	socket = bpf_sock_from_file(ctx->file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || BPF_CORE_READ_BITFIELD(sk, sk_protocol) != IPPROTO_TCP ||
	    sk->__sk_common.skc_state != TCP_LISTEN)
		return 0;
	learn(true, task, &mine.owner);
	mine.owner.source = OWNER_SEEDED;
	mine.wanted = owner_passes(true, task, &mine.owner);
	if (!bpf_sk_storage_get(&owners, sk, &mine, BPF_SK_STORAGE_GET_F_CREATE))
		count_lost(LOST_LEDGER);
	return 0;
}

/* -- the child */

/* Both directions of an open at once have a socket already; a child has none before accept(). */
static __always_inline bool is_child(const bool typed, struct sock *sk,
				     const struct listening *listener)
{
	return listener || !READ(sk, sk_socket);
}

static __always_inline void outcome_of_child(const bool typed, struct tcp_sock *tp,
					     struct outcome *outcome)
{
	outcome->latency_ns = (u64)(READ(tp, srtt_us) >> 3) * NSEC_PER_USEC;
	outcome->syn_retrans = READ(tp, total_retrans);
	outcome->result = RESULT_OK;
	outcome->tcp_state = TCP_ESTABLISHED;
	outcome->role = ROLE_SERVER;
}

static __always_inline void emit_child(const bool typed, struct sock *sk)
{
	struct tcp_sock *tp = tcp_sock_of(typed, sk);
	struct listening *listener;
	struct outcome outcome;
	struct owner owner = {};
	struct flow flow;

	if (!tp || READ_BITFIELD(sk, sk_protocol) != IPPROTO_TCP)
		return;
	if (typed)
		listener = bpf_sk_storage_get(&owners, sk, NULL, 0);
	else
		listener = listener_by_address(sk);
	if (!is_child(typed, sk, listener))
		return;
	if (listener ? !listener->wanted : !unknown_owner_passes())
		return;
	if (listener && listener->owner.source) {
		owner = listener->owner;
		owner.source = OWNER_INHERITED;
	}
	flow_of_sock(typed, sk, tp, &flow);
	outcome_of_child(typed, tp, &outcome);
	emit_connection(typed, sk, bpf_ktime_get_ns(), &owner, &flow, &outcome);
}

static __always_inline int on_inbound(const bool typed, const bool first, struct sock *sk,
				      int oldstate, int newstate)
{
	if (newstate == TCP_LISTEN && first)
		learn_listener(typed, sk);
	else if (oldstate == TCP_LISTEN && newstate == TCP_CLOSE && first && !typed)
		forget_by_address(sk);
	else if (oldstate == TCP_SYN_RECV && newstate == TCP_ESTABLISHED && !is_done(first, sk))
		emit_child(typed, sk);
	return 0;
}

#define ON_INBOUND(name, hook, typed, first)                             \
	SEC(hook "/inet_sock_set_state")                                 \
	int BPF_PROG(name, struct sock *sk, int oldstate, int newstate)  \
	{                                                                \
		return on_inbound(typed, first, sk, oldstate, newstate); \
	}

ON_INBOUND(server_typed, "tp_btf", true, FIRST)
ON_INBOUND(server_typed_again, "tp_btf", true, SECOND)
ON_INBOUND(server_raw, "raw_tp", false, FIRST)
ON_INBOUND(server_raw_again, "raw_tp", false, SECOND)

#endif
