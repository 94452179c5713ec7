/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Record transport to user space: a ring buffer, or perf buffers where the kernel has none; and counters of
 * lost data.
 *
 * Every kernel that accepts typed programs has ring buffers: the typed objects have no perf buffers.
 */
#ifndef CGNET_BASE_TRANSPORT_BPF_H
#define CGNET_BASE_TRANSPORT_BPF_H

#include "base/program.bpf.h"
#include "abi/filter.h"
#include "abi/session.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 * 1024 * 1024);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOST_WHERE_COUNT);
	__type(key, u32);
	__type(value, u64);
} lost SEC(".maps");

static __always_inline void count_lost(u32 where)
{
	u64 *count = bpf_map_lookup_elem(&lost, &where);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* -- perf buffers, one per CPU */

/*
 * The test for a ring buffer looks for the type that implements it, not for helper numbers, which a kernel
 * may list without having them. The result is a constant in the code, so that even verifiers that do not
 * track the contents of .rodata never walk the other branch, whose helpers and maps do not exist.
 */
struct bpf_ringbuf___any {};

static __always_inline bool uses_perf_buffer(void)
{
	return !TYPED && !bpf_core_type_exists(struct bpf_ringbuf___any);
}

UNTYPED_ONLY struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(u32));
} perf SEC(".maps");

#define MAX_PENDING_RECORDS \
	16 /* a power of two: limit on the records that all programs running on a CPU have pending */

struct pending_record {
	u32 size;
	u32 where; /* counter to use if it is lost */
	u8 record[sizeof(struct cgroup_event)];
};

/*
 * Per-CPU stack of records for the perf buffer. bpf_perf_event_output() copies a record at once and requires
 * the program's context, which bodies do not get. Bodies put records here, and program entries send them.
 * Programs on a CPU interrupt each other, but end in reverse order: the records above a program's mark when
 * it ends are its own.
 */
struct pending_records {
	u32 used;
	u32 pad;
	struct pending_record records[MAX_PENDING_RECORDS];
};

_Static_assert(sizeof(struct pending_records) <= 32 * 1024, "a CPU's part of a map is limited");

UNTYPED_ONLY struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct pending_records);
} pending_records SEC(".maps");

static __always_inline void *pending_room(u64 size, u32 where)
{
	struct pending_records *box = bpf_map_lookup_elem(&pending_records, &(u32){0});
	struct pending_record *pending_record;
	u64 used; /* as wide as a register, and masked before the multiplication */

	if (!box)
		return NULL;
	used = box->used;
	if (used >= MAX_PENDING_RECORDS)
		return NULL;
	box->used = used + 1;
	barrier_var(used);
	used &= MAX_PENDING_RECORDS - 1;
	barrier_var(used);
	pending_record = &box->records[used];
	pending_record->size = size;
	pending_record->where = where;
	return pending_record->record;
}

/* Return false if there is none. */
static __always_inline bool flush_record(void *ctx, struct pending_records *box, u64 at)
{
	struct pending_record *pending_record;
	u64 size;

	if (at >= box->used || at >= MAX_PENDING_RECORDS)
		return false;
	barrier_var(at);
	at &= MAX_PENDING_RECORDS - 1;
	barrier_var(at);
	pending_record = &box->records[at];
	size = pending_record->size;
	barrier_var(size);
	if (size > sizeof(pending_record->record))
		return false;
	if (bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, pending_record->record, size))
		count_lost(pending_record->where);
	return true;
}

static __always_inline void flush_records(void *ctx, struct pending_records *box, u64 from,
					  u32 most)
{
	for (u32 i = 0; i < most; i++)
		if (!flush_record(ctx, box, from + i))
			break;
	box->used = from;
}

/* Run `call` for a program entry, and then send up to `most` records. */
#if TYPED
#define WITH_PERF_FLUSH_MOST(ctx, most, call) (call)
#else
#define WITH_PERF_FLUSH_MOST(ctx, most, call)                                                 \
	({                                                                                    \
		struct pending_records *its_box =                                             \
			uses_perf_buffer() ? bpf_map_lookup_elem(&pending_records, &(u32){0}) \
					   : NULL;                                            \
		u32 its_mark = its_box ? its_box->used : 0;                                   \
		int its_result = call;                                                        \
		if (its_box)                                                                  \
			flush_records(ctx, its_box, its_mark, most);                          \
		its_result;                                                                   \
	})
#endif

#define WITH_PERF_FLUSH(ctx, call) WITH_PERF_FLUSH_MOST(ctx, MAX_PENDING_RECORDS, call)

/* -- for bodies */

#ifdef IN_SESSION
/* One ring buffer per kind of record, each with its own counter of lost records. */
struct signal_ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring_connects SEC(".maps"), ring_failures SEC(".maps"), ring_samples SEC(".maps"),
	ring_lives SEC(".maps"), ring_drops SEC(".maps"), ring_resends SEC(".maps");

/* Records lost for lack of room, by enum ring_number. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RING_COUNT);
	__type(key, u32);
	__type(value, u64);
} rings_lost SEC(".maps");

static __always_inline void *ring_of(u32 number)
{
	switch (number) {
	case RING_CONNECTS:
		return &ring_connects;
	case RING_FAILURES:
		return &ring_failures;
	case RING_SAMPLES:
		return &ring_samples;
	case RING_LIVES:
		return &ring_lives;
	case RING_DROPS:
		return &ring_drops;
	case RING_RESENDS:
		return &ring_resends;
	default:
		return &ring;
	}
}

static __always_inline void count_lost_of_ring(u32 number, u32 where)
{
	u64 *count;

	if (number == RING_EVENTS) {
		count_lost(where);
		return;
	}
	count = bpf_map_lookup_elem(&rings_lost, &number);
	if (count)
		__sync_fetch_and_add(count, 1);
}
#else
static __always_inline void *ring_of(u32 number)
{
	return &ring;
}

static __always_inline void count_lost_of_ring(u32 number, u32 where)
{
	count_lost(where);
}
#endif

/*
 * Reserve room for a record and fill its head; NULL if there is none, counted as lost at `where`. `number`: enum
 * ring_number, for objects that have several.
 */
static __always_inline void *reserve_in(u32 number, u32 size, u32 kind, u64 ts_ns, u32 where)
{
	struct head *head;

	if (uses_perf_buffer())
		head = pending_room(size, where);
	else
		head = bpf_ringbuf_reserve(ring_of(number), size, 0);
	if (unlikely(!head)) {
		count_lost_of_ring(number, where);
		return NULL;
	}
	head->kind = kind;
	head->pad = 0;
	head->ts_ns = ts_ns;
	return head;
}

static __always_inline void *reserve(u32 size, u32 kind, u64 ts_ns, u32 where)
{
	return reserve_in(RING_EVENTS, size, kind, ts_ns, where);
}

/*
 * The reader polls the ring 20 times a second. Waking it would cost the sender an interrupt and the host a
 * context switch for each record.
 */
static __always_inline void submit(void *record)
{
	if (!uses_perf_buffer())
		bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/* Send the first `size` bytes of a record stored elsewhere, complete with its head. */
static __always_inline void submit_copy(const void *record, u64 size, u32 where)
{
	void *room;

	if (!uses_perf_buffer()) {
		if (bpf_ringbuf_output(&ring, (void *)record, size, BPF_RB_NO_WAKEUP))
			count_lost(where);
		return;
	}
	room = pending_room(size, where);
	if (room)
		bpf_probe_read_kernel(room, size, record);
	else
		count_lost(where);
}

#endif
