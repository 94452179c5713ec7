/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ledger of all TCP sockets, for commands that follow connections beyond their beginning.
 *
 * The includer calls ledger_on_state() for what comes to inet_sock_set_state, before it looks at it
 * itself. The programs here are the rest.
 */
#ifndef CGNET_TRACKING_BPF_H
#define CGNET_TRACKING_BPF_H

/* All but closed ones: those are learnt when they open. */
#define SEEDED_STATES (~(1 << TCP_CLOSE))

#include "fallback.bpf.h"
#include "seeds.bpf.h"

static __always_inline void write_opener(const bool typed, struct ledger_entry *entry,
					 const struct holder *holder, u8 source)
{
	struct holder *opener = &entry->holders[RANK_OPENED];

	if (!rank_claim(typed, entry, RANK_OPENED))
		return;
	*opener = *holder;
	opener->owner.source = source;
	rank_is_whole(typed, entry, RANK_OPENED);
}

/* Fill in a socket's opener if it is known from elsewhere. */
static __always_inline bool ledger_look_up(const bool typed, struct ledger_entry *entry,
					   struct sock *sk)
{
	struct holder *known = typed ? NULL : seed_of(sk);

	if (!known)
		known = holder_of_connection(sk);
	if (known) {
		write_opener(typed, entry, known, known->owner.source);
		return true;
	}
	if (!is_newborn(typed, sk)) /* it waits for accept() since before the start */
		return false;
	known = listener_by_address(sk);
	if (!known || !known->owner.source)
		return false;
	write_opener(typed, entry, known, OWNER_INHERITED);
	return true;
}

/* A guess that knows nobody is made again: user space may have found whose the namespace is. */
static __always_inline void ledger_guess(const bool typed, struct ledger_entry *entry,
					 struct sock *sk)
{
	struct holder guess = {};

	fall_back(typed, sk, &guess);
	if (!guess.owner.source) {
		entry->holders[RANK_GUESSED].wanted = guess.wanted;
	} else if (rank_claim(typed, entry, RANK_GUESSED)) {
		entry->holders[RANK_GUESSED] = guess;
		rank_is_whole(typed, entry, RANK_GUESSED);
	}
}

/*
 * The entry of a socket, its owner filled in as well as is possible now. `locked`: the event comes
 * under the socket's lock, and not from somebody who kills it.
 */
static __always_inline struct ledger_entry *ledger_of(const bool typed, const bool locked,
						      struct sock *sk)
{
	struct ledger_entry *entry = ledger_find(typed, sk);

	if (likely(entry && entry->whole > 1 << RANK_GUESSED))
		return entry;
	if (!entry)
		entry = ledger_open(typed, sk);
	if (!entry || ledger_look_up(typed, entry, sk))
		return entry;
	if (locked && runs_for_user(typed, sk) && !is_subflow(sk)) {
		ledger_learn(typed, entry);
	} else if (!entry->whole) {
		ledger_guess(typed, entry, sk);
	}
	return entry;
}

static __always_inline void ledger_connects(const bool typed, struct sock *sk)
{
	struct ledger_entry *entry = ledger_open(typed, sk);

	if (!entry)
		return;
	ledger_reset(entry);
	entry->role = ROLE_CLIENT;
	if (joins_connection(sk) || !runs_for_user(typed, sk))
		return;
	ledger_learn(typed, entry);
	if (is_subflow(sk))
		remember_connection(sk, &entry->holders[RANK_OPENED], BPF_ANY);
}

/*
 * A child is its listener's until somebody reads from it. It is born with a copy of its listener's address
 * and, with storage, of its entry.
 */
static __always_inline void ledger_is_born(const bool typed, struct sock *sk)
{
	struct ledger_entry *entry = ledger_open(typed, sk);
	static const struct ledger_private blank;
	struct holder *listener;

	if (!entry)
		return;
	if (entry->listens && entry->whole >> RANK_OPENED) {
		if (entry->holders[RANK_OPENED].owner.source)
			entry->holders[RANK_OPENED].owner.source = OWNER_INHERITED;
		entry->listens = 0;
		entry->private = blank;
	} else {
		ledger_reset(entry);
		listener = listener_by_address(sk);
		if (listener && listener->owner.source)
			write_opener(typed, entry, listener, OWNER_INHERITED);
	}
	entry->role = ROLE_SERVER;
}

/* Makes up for a birth that was missed. When both sides open at once, there is a role. */
static __always_inline void ledger_is_established(const bool typed, struct sock *sk)
{
	struct ledger_entry *entry = ledger_find(typed, sk);

	if (!(entry && entry->role) && is_newborn(typed, sk))
		ledger_is_born(typed, sk);
}

static __always_inline void ledger_on_state(const bool typed, struct sock *sk, int oldstate,
					    int newstate)
{
	if (newstate == TCP_SYN_SENT)
		ledger_connects(typed, sk);
	else if (newstate == TCP_LISTEN)
		learn_listener(typed, sk);
	else if (oldstate == TCP_LISTEN && newstate == TCP_SYN_RECV)
		ledger_is_born(typed, sk);
	else if (oldstate == TCP_LISTEN)
		forget_listener(typed, sk);
	else if (oldstate == TCP_SYN_RECV && newstate == TCP_ESTABLISHED)
		ledger_is_established(typed, sk);
}

/* -- who reads */

static __always_inline int on_read(const bool typed, struct sock *sk)
{
	struct ledger_entry *entry = ledger_find(typed, sk);

	if (likely(entry && entry->whole >> RANK_READ))
		return 0;
	if (!runs_for_user(typed, sk))
		return 0;
	if (!entry)
		entry = ledger_open(typed, sk);
	if (!entry || !rank_claim(typed, entry, RANK_READ))
		return 0;
	hold(typed, current_task(typed), &entry->holders[RANK_READ]);
	rank_is_whole(typed, entry, RANK_READ);
	return 0;
}

SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(ledger_read_typed, struct sock *sk)
{
	return on_read(true, sk);
}

SEC("raw_tp/tcp_rcv_space_adjust")
int BPF_PROG(ledger_read_raw, struct sock *sk)
{
	return on_read(false, sk);
}

/* -- the end: storage is freed by the kernel */

SEC("raw_tp/tcp_destroy_sock")
int BPF_PROG(ledger_gone_raw, struct sock *sk)
{
	u64 key = (u64)sk;

	bpf_map_delete_elem(&ledger_hash, &key);
	return 0;
}

#endif
