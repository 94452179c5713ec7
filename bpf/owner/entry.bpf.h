/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the ledger keeps of a socket.
 *
 * The includer says what else it keeps per socket: `struct ledger_private`. Both live in one entry,
 * so that an event costs one look-up.
 */
#ifndef CGNET_OWNER_ENTRY_BPF_H
#define CGNET_OWNER_ENTRY_BPF_H

#include "filter/filter.bpf.h"
#include "base/transport.bpf.h"

/*
 * How well an owner is known; the best counts. Softirqs read an entry while a process writes to it, so
 * each rank has a place of its own, which is written once and then said to be whole.
 */
enum rank {
	RANK_GUESSED = 0, /* what the kernel keeps of a socket without our help */
	RANK_OPENED = 1,  /* who opened it, whose listener did, or had it open at the start */
	RANK_READ = 2,	  /* who read from it first: it may be another one than who opened it */
	RANKS = 3,
};

/* What each packet or read looks at stands first: it shares a line of the cache with the kernel's part. */
struct ledger_entry {
	u32 whole;   /* ranks that may be read, as bits */
	u32 claimed; /* ranks that somebody writes, or wrote */
	u32 role;    /* enum role; 0: unknown, open before the start */
	u32 listens; /* 1: it is a listener's, or a copy that a child of it was born with */
	struct ledger_private private;
	u64 opener; /* the signal_struct of the process that opened it: its PID may be used again */
	struct holder holders[RANKS];
	u64 listener; /* the inode of the one that it is an entry of, or a copy of it */
};

/* Whoever comes first may write a rank. Untyped programs write under the socket's lock, one at a time. */
static __always_inline bool rank_claim(const bool typed, struct ledger_entry *entry, enum rank rank)
{
	if (typed)
		return !(__sync_fetch_and_or(&entry->claimed, 1 << rank) & (1 << rank));
	return !(entry->whole & (1 << rank));
}

static __always_inline void rank_is_whole(const bool typed, struct ledger_entry *entry,
					  enum rank rank)
{
	if (typed) {
		__sync_fetch_and_or(&entry->whole, 1 << rank);
	} else {
		barrier();
		*(volatile u32 *)&entry->whole = entry->whole | 1 << rank;
	}
}

/* The owner as far as it is known. */
static __always_inline const struct holder *holder_of(const struct ledger_entry *entry)
{
	u32 whole = *(volatile u32 *)&entry->whole;

	if (whole & (1 << RANK_READ))
		return &entry->holders[RANK_READ];
	if (whole & (1 << RANK_OPENED))
		return &entry->holders[RANK_OPENED];
	return &entry->holders[RANK_GUESSED];
}

/*
 * An entry is given up. If its connection began and didn't end, an event was hidden from the programs: its row is lost. The
 * includer whose entries have `established_ns` and `ended` says so by KEEPS_LIVES.
 */
static __always_inline void end_of_entry(struct ledger_entry *entry)
{
#ifdef KEEPS_LIVES
	if (likely(!entry->private.established_ns || entry->private.ended))
		return;
	entry->private.ended = 1;
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
