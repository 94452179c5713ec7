/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What limited a connection, as TCP itself accounts for it: what `ss -ti` shows. */
#ifndef CGNET_LIFE_LIMITS_BPF_H
#define CGNET_LIFE_LIMITS_BPF_H

#include "base/compat.bpf.h"
#include "abi/life.h"

#define UNKNOWN_COUNT (~0U)

/* Clocks of TCP's chronometer: values of tcp_sock.chrono_type, of which one runs, or none. */
enum {
	CHRONO_BUSY = 1,
	CHRONO_RWND_LIMITED = 2,
	CHRONO_SNDBUF_LIMITED = 3,
};

/*
 * Time of one clock, which has run on if it is `running`. Without a branch: all that follows would be
 * verified again.
 */
static __always_inline u32 clock_ticks(u32 stopped, u32 clock, u32 running, u32 since_start)
{
	u32 runs = 1U << running >> clock & 1;

	barrier_var(runs);
	return stopped + runs * since_start;
}

#define CLOCK_TICKS(typed, tp, clock, running, since_start) \
	clock_ticks(READ_AS(typed, tp, chrono_stat[(clock) - 1]), clock, running, since_start)

/*
 * A bit-field of a byte in older kernels. BPF_CORE_READ_BITFIELD, which also has the other sizes, costs more
 * verified instructions.
 */
static __always_inline u32 running_clock(const bool typed, struct tcp_sock *tp)
{
	const void *at = (void *)tp + __CORE_RELO(tp, chrono_type, BYTE_OFFSET);
	u8 byte;

	barrier_var(at); /* libbpf refuses a load that has the relocation itself, of a bit-field */
	if (typed)
		byte = *(const u8 *)at;
	else
		bpf_core_read(&byte, sizeof(byte), at);
	return (u64)byte << __CORE_RELO(tp, chrono_type, LSHIFT_U64) >>
	       __CORE_RELO(tp, chrono_type, RSHIFT_U64);
}

/* As tcp_compute_delivery_rate() of the kernel; 0: never measured. */
static __always_inline u64 delivery_rate(const bool typed, struct tcp_sock *tp)
{
	u32 interval_us;

	if (!bpf_core_field_exists(tp->rate_interval_us))
		return 0;
	interval_us = READ_AS(typed, tp, rate_interval_us);
	if (!interval_us)
		return 0;
	return (u64)READ_AS(typed, tp, rate_delivered) * READ_AS(typed, tp, mss_cache) *
	       USEC_PER_SEC / interval_us;
}

/* Resends that were not necessary: counted since Linux kernel commit 7e10b6554ff2 (in v4.19). */
static __always_inline u32 dsack_dups(const bool typed, struct tcp_sock *tp)
{
	return bpf_core_field_exists(tp->dsack_dups) ? READ_AS(typed, tp, dsack_dups)
						     : UNKNOWN_COUNT;
}

static __always_inline u16 reordering(const bool typed, struct tcp_sock *tp)
{
	u32 segments = READ_AS(typed, tp, reordering);

	return segments < 0xffff ? segments : 0xffff;
}

/* As tcp_get_info_chrono_stats() of the kernel; without a clock of ticks a running one is unknown. */
static __always_inline void measure_clocks(const bool typed, struct tcp_sock *tp, struct life *life)
{
	u32 running, since_start = 0;

	life->busy_ticks = UNKNOWN_COUNT;
	if (!bpf_core_field_exists(tp->chrono_stat))
		return;
	running = running_clock(typed, tp);
	barrier_var(running);
	if (has_tick_clock())
		since_start = (u32)bpf_jiffies64() - READ_AS(typed, tp, chrono_start);
	else if (running)
		return;
	life->busy_ticks = CLOCK_TICKS(typed, tp, CHRONO_BUSY, running, since_start);
	life->rwnd_ticks = CLOCK_TICKS(typed, tp, CHRONO_RWND_LIMITED, running, since_start);
	life->sndbuf_ticks = CLOCK_TICKS(typed, tp, CHRONO_SNDBUF_LIMITED, running, since_start);
}

static __always_inline void measure_limits(const bool typed, struct tcp_sock *tp, struct life *life)
{
	measure_clocks(typed, tp, life);
	life->delivery_rate = delivery_rate(typed, tp);
	life->dsack_dups = dsack_dups(typed, tp);
	life->reordering = reordering(typed, tp);
}

#endif
