/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Ledger of all TCP sockets, for commands that follow connections beyond their start.
 *
 * The including file calls ledger_on_state() for each inet_sock_set_state event, before it handles the event
 * itself. The programs here do the rest. It may define ON_END_OF_SOCKET(sk), which runs when the kernel frees a
 * socket.
 */
#ifndef CGNET_OWNER_ALL_SOCKETS_BPF_H
#define CGNET_OWNER_ALL_SOCKETS_BPF_H

/* All but closed sockets: the ledger records those when they open. */

#include "owner/guess.bpf.h"
#include "owner/open_sockets.bpf.h"
#include "peer/ledger_end.bpf.h"

/*
 * Direct-mapped table of the sockets whose reader is known, by socket hash: most reads need only this.
 * Entries are socket addresses, which are reused: the start of a connection clears its entry.
 */
#define READERS 4096

struct readers {
	u64 sockets[READERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct readers);
} readers SEC(".maps");

/* Slot of a socket, which holds its address if its reader is known. */
static __always_inline u64 *reader_known(struct sock *sk)
{
	struct readers *all = bpf_map_lookup_elem(&readers, &(u32){0});

	return all ? &all->sockets[READ(sk, __sk_common.skc_hash) % READERS] : NULL;
}

static __always_inline void forget_reader(struct sock *sk)
{
	u64 *known = reader_known(sk);

	if (known && *known == (u64)sk)
		*known = 0;
}

static __always_inline void write_opener(struct ledger_entry *entry, const struct holder *holder,
					 u8 source)
{
	struct holder *opener = &entry->holders[RANK_OPENED];

	if (!rank_claim(entry, RANK_OPENED))
		return;
	*opener = *holder;
	opener->owner.source = source;
	rank_is_whole(entry, RANK_OPENED);
}

/* Fill in a socket's opener if it is known from another source. */
static __always_inline bool ledger_look_up(struct ledger_entry *entry, struct sock *sk)
{
	struct holder *known = TYPED ? NULL : seed_of(sk);

	if (!known)
		known = holder_of_connection(sk);
	if (known) {
		write_opener(entry, known, known->owner.source);
		return true;
	}
	if (!is_new_child(sk)) /* else it waits for accept() since before the start */
		return false;
	known = listener_by_address(TYPED, sk);
	if (!known || !known->owner.source)
		return false;
	write_opener(entry, known, OWNER_INHERITED);
	return true;
}

/* Repeat a guess that found no owner: user space may have found the owner of the namespace. */
static __always_inline void ledger_guess(struct ledger_entry *entry, struct sock *sk)
{
	struct holder guess = {};

	fall_back(sk, &guess);
	if (!guess.owner.source) {
		entry->holders[RANK_GUESSED].wanted = guess.wanted;
	} else if (rank_claim(entry, RANK_GUESSED)) {
		entry->holders[RANK_GUESSED] = guess;
		rank_is_whole(entry, RANK_GUESSED);
	}
}

/*
 * Entry of a socket, with the best owner that is available now. `locked`: the event occurs under the socket's
 * lock, and not in a task that kills the socket.
 */
static __always_inline struct ledger_entry *ledger_of(const bool locked, struct sock *sk)
{
	struct ledger_entry *entry = ledger_find(TYPED, sk);

	if (likely(entry && entry->whole > 1 << RANK_GUESSED))
		return entry;
	if (!entry)
		entry = ledger_add(sk);
	if (!entry || ledger_look_up(entry, sk))
		return entry;
	if (locked && runs_for_user(sk) && !is_subflow(sk)) {
		ledger_learn_current(entry);
	} else if (!entry->whole) {
		ledger_guess(entry, sk);
	}
	return entry;
}

static __always_inline struct ledger_entry *ledger_connects(struct sock *sk)
{
	struct ledger_entry *entry = ledger_open_anew(sk);
	bool subflow = is_subflow(sk);

	if (!entry)
		return NULL;
	entry->role = ROLE_CLIENT;
	if ((subflow && joins_connection(sk)) || !runs_for_user(sk))
		return entry;
	ledger_learn_current(entry);
	if (subflow)
		remember_connection(sk, &entry->holders[RANK_OPENED], BPF_ANY);
	return entry;
}

/*
 * A child belongs to its listener's owner until a process reads from it. The kernel creates it with a copy of
 * its listener's address and, where that is in storage, of its entry.
 */
static __always_inline struct ledger_entry *ledger_is_born(struct sock *sk)
{
	struct ledger_entry *entry = ledger_stored(sk);
	struct holder *listener;
	u64 opener;

	if (entry && entry->listens && entry->whole >> RANK_OPENED) {
		ledger_slot_free(sk);
		listener = listener_by_inode(entry);
		opener = entry->opener;
		ledger_reset(entry);
		entry->opener = opener;
	} else {
		entry = ledger_open_anew(sk);
		if (!entry)
			return NULL;
		listener = listener_by_address(TYPED, sk);
	}
	if (listener && listener->owner.source)
		write_opener(entry, listener, OWNER_INHERITED);
	entry->role = ROLE_SERVER;
	return entry;
}

/* Make up for a missed creation. In a simultaneous open the role is set already. */
static __always_inline struct ledger_entry *ledger_is_established(struct sock *sk, int oldstate)
{
	struct ledger_entry *entry = ledger_find(TYPED, sk);
	struct tcp_sock *tp = tcp_sock_of(sk);

	if (oldstate == TCP_SYN_RECV && (!entry || entry->role != ROLE_SERVER) && is_new_child(sk))
		entry = ledger_is_born(sk);
	if (peer_config.follow && !(entry && entry->whole))
		entry = ledger_of(false, sk);
	if (!entry || !tp)
		return entry;
	entry->made = !is_restored(TYPED, tp);
	if (peer_config.follow)
		ledger_end_is_made(bpf_ktime_get_ns(), tp, entry);
	return entry;
}

static __always_inline void ledger_is_closed(struct sock *sk)
{
	struct ledger_entry *entry = ledger_find(TYPED, sk);

	if (entry)
		ledger_end_is_over(sk, entry);
}

/* Return the entry if there is one and it was looked up. */
static __always_inline struct ledger_entry *ledger_on_state(struct sock *sk, int oldstate,
							    int newstate)
{
	if (newstate == TCP_SYN_SENT)
		return ledger_connects(sk);
	if (newstate == TCP_ESTABLISHED) {
		forget_reader(sk);
		return ledger_is_established(sk, oldstate);
	}
	if (newstate == TCP_LISTEN)
		learn_listener(sk);
	else if (oldstate == TCP_LISTEN && newstate == TCP_SYN_RECV)
		return ledger_is_born(sk);
	else if (oldstate == TCP_LISTEN)
		forget_listener(sk);
	else if (newstate == TCP_CLOSE && peer_config.ends)
		ledger_is_closed(sk);
	return NULL;
}

/* -- readers */

/* Whether a task is in the opener's process, under the same name. */
static __always_inline bool is_opener(struct task_struct *task, const struct ledger_entry *entry)
{
	const struct owner *opener = &entry->holders[RANK_OPENED].owner;
	const u64 *then = (const u64 *)opener->comm;
	u64 now[CGNET_COMM_LEN / sizeof(u64)];

	if (!(entry->whole >> RANK_OPENED) || entry->opener != (u64)READ(task, signal) ||
	    opener->pid != (u32)READ(task, tgid))
		return false;
	READ_ARRAY(now, task, comm);
	return now[0] == then[0] && now[1] == then[1];
}

static __always_inline void learn_reader(struct ledger_entry *entry)
{
	struct holder *reader = &entry->holders[RANK_READ];
	struct task_struct *task = current_task();

	if (!rank_claim(entry, RANK_READ))
		return;
	if (likely(is_opener(task, entry))) {
		*reader = entry->holders[RANK_OPENED];
		reader->owner.source = OWNER_LEARNED;
	} else {
		hold(task, reader);
	}
	rank_is_whole(entry, RANK_READ);
}

VERIFIED_ONCE int learn_reader_typed(struct ledger_entry *entry)
{
	if (entry)
		learn_reader(entry);
	return 0;
}

static __always_inline int on_read(struct sock *sk)
{
	u64 *known = reader_known(sk);
	struct ledger_entry *entry;

	if (likely(known && *known == (u64)sk))
		return 0;
	entry = ledger_find(TYPED, sk);
	if (!(entry && entry->whole >> RANK_READ)) {
		if (!runs_for_user(sk))
			return 0;
		if (!entry)
			entry = ledger_add(sk);
		if (!entry)
			return 0;
		if (TYPED)
			learn_reader_typed(entry);
		else
			learn_reader(entry);
		reader_is_learnt(sk, entry);
	}
	if (known)
		*known = (u64)sk;
	return 0;
}

TRACEPOINT_PROGRAM(ledger_read, tcp_rcv_space_adjust, WITH(struct sock *sk),
		   WITH_PERF_FLUSH(ctx, on_read(sk)))

/* -- the end: the kernel frees storage */

static __always_inline int on_end_of_socket(struct sock *sk)
{
	struct ledger_slot *slot = TYPED ? ledger_slot_find(sk) : NULL;
	struct ledger_entry *entry = slot ? &slot->entry : NULL;
	u64 key = (u64)sk;

#ifdef ON_END_OF_SOCKET
	ON_END_OF_SOCKET(sk);
#endif
#ifdef KEEPS_LIVES
	if (!entry)
		entry = TYPED ? ledger_stored(sk) : ledger_find(TYPED, sk);
#endif
	if (entry)
		end_of_entry(entry);
	if (slot)
		slot->gone = 1;
	if (!TYPED)
		bpf_map_delete_elem(&ledger_hash, &key);
	return 0;
}

TRACEPOINT_PROGRAM(ledger_gone, tcp_destroy_sock, WITH(struct sock *sk), on_end_of_socket(sk))

#endif
