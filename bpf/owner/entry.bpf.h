/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Ledger entry of a socket.
 *
 * An object may add state of its own, in the same entry, so that an event costs one lookup: it defines
 * `struct ledger_private` and HAS_LEDGER_PRIVATE before, or includes a signal's private.bpf.h before.
 */
#ifndef CGNET_OWNER_ENTRY_BPF_H
#define CGNET_OWNER_ENTRY_BPF_H

#include "filter/filter.bpf.h"
#include "base/transport.bpf.h"

/*
 * Quality of an owner; the highest rank counts. Softirqs read an entry while a process writes to it, so each
 * rank has a slot of its own, which is written once and then marked as whole.
 */
enum rank {
	RANK_GUESSED = 0, /* from the kernel's own record of the socket */
	RANK_OPENED = 1,  /* opened it or its listener, or had it open at the start */
	RANK_READ = 2,	  /* read from it first: may differ from the opener */
	RANKS = 3,
};

#if defined(KEEPS_LIVES) || defined(KEEPS_RTTS) || defined(KEEPS_ATTEMPTS) || defined(KEEPS_SUMS)
struct ledger_private {
#ifdef KEEPS_LIVES
	struct life_private life;
#endif
#ifdef KEEPS_RTTS
	struct rtt_private rtt;
#endif
#ifdef KEEPS_ATTEMPTS
	struct attempt_start attempt;
#endif
#ifdef KEEPS_SUMS
	struct sums_private sums;
#endif
};
#elif !defined(HAS_LEDGER_PRIVATE)
struct ledger_private {
	u64 none;
};
#endif

/* The fields that each packet or read uses come first: they share a cache line with the kernel's part. */
struct ledger_entry {
	u32 whole;   /* bits: ranks that may be read */
	u32 claimed; /* bits: ranks that are or were written */
	u32 role;    /* enum role; 0: unknown, open before the start */
	u16 listens; /* 1: entry of a listener, or a child's copy of it */
	u16 made;    /* 1: established by a handshake, as was seen: not restored by TCP_REPAIR */
	struct ledger_private private;
	u64 opener; /* signal_struct of the process that opened it: its PID may be reused */
	struct holder holders[RANKS];
	u64 listener; /* inode of the listener whose entry, or copy, this is */
};

/* The first claim may write a rank. Raw programs write under the socket's lock, one at a time. */
static __always_inline bool rank_claim(struct ledger_entry *entry, enum rank rank)
{
	if (TYPED)
		return !(__sync_fetch_and_or(&entry->claimed, 1 << rank) & (1 << rank));
	return !(entry->whole & (1 << rank));
}

static __always_inline void rank_is_whole(struct ledger_entry *entry, enum rank rank)
{
	if (TYPED) {
		__sync_fetch_and_or(&entry->whole, 1 << rank);
	} else {
		barrier();
		*(volatile u32 *)&entry->whole = entry->whole | 1 << rank;
	}
}

/* Best known owner. */
static __always_inline const struct holder *holder_of(const struct ledger_entry *entry)
{
	u64 rank = *(volatile u32 *)&entry->whole >> 1 & 3;

	/* Not by branches, or the verifier walks what follows once for each rank. */
	rank &= ~(rank >> 1);
	barrier_var(rank);
	if (rank >= RANKS)
		rank = 0;
	return &entry->holders[rank];
}

/*
 * Release an entry. If its connection began and did not end, the programs missed an event: its record is
 * lost.
 */
static __always_inline void end_of_entry(struct ledger_entry *entry)
{
#ifdef KEEPS_LIVES
	if (likely(!entry->private.life.established_ns || entry->private.life.ended))
		return;
	entry->private.life.ended = 1;
	if (holder_of(entry)->wanted && role_passes(entry->role))
		count_lost(LOST_ENDS);
#endif
}

static __always_inline void ledger_reset(struct ledger_entry *entry)
{
	end_of_entry(entry);
	__builtin_memset(entry, 0, sizeof(*entry));
}

#endif
