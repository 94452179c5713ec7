/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where signals are summed up by owner, and whether their records are wanted. An object of one signal has
 * records alone.
 */
#ifndef CGNET_SUMS_HOOKS_BPF_H
#define CGNET_SUMS_HOOKS_BPF_H

#ifdef IN_SESSION
#include "sums/owner_sums.bpf.h"
#else
#include "owner/entry.bpf.h"
#include "abi/drop.h"
#include "abi/life.h"
#include "abi/retrans.h"
#include "abi/session.h"

static __always_inline bool tells(u32 signal)
{
	return true;
}

static __always_inline bool is_wanted(u32 signals)
{
	return true;
}

static __always_inline bool is_of_everybody(u32 signal)
{
	return false;
}

static __always_inline void sum_end(const struct owner *owner, struct ledger_entry *entry,
				    const struct life *life)
{
}

static __always_inline void sum_drop(const struct owner *owner, const struct drop *drop)
{
}

static __always_inline void sum_resend(const struct owner *owner, const struct retrans *retrans)
{
}

static __always_inline void sum_rtt(const struct owner *owner, u32 rtt_us)
{
}

static __always_inline void sum_turn(const struct owner *owner, u32 took_us)
{
}
#endif

#endif
