/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP packets that this host dropped, to tell which resends they caused. Such a packet may have been forwarded,
 * translated and moved to another namespace, and have no socket any more. Address translation keeps sequence and
 * acknowledgement numbers, and time stamps: they identify the segment.
 */
#ifndef CGNET_RETRANS_DROPPED_PACKETS_BPF_H
#define CGNET_RETRANS_DROPPED_PACKETS_BPF_H

#include "drop/class.bpf.h"
#include "abi/retrans.h"

CROSSES_TO_USER_SPACE(drop_knowledge);
CONFIG(retrans_config);

/* include/net/tcp.h */
#define FLAG_FIN 0x01
#define FLAG_SYN 0x02
#define FLAG_RST 0x04
#define FLAG_ACK 0x10

#define DROPPED_SETS 2048
#define DROPPED_SETS_LOG2 11
#define DROPPED_WAYS 8 /* a power of two */
#define BLOCK_LOG2 12  /* sequence numbers of a block; those of a block share a set */
#define BLOCK_NUMBERS ((1 << (32 - BLOCK_LOG2)) - 1)
#define BLOCKS 17 /* that a packet may span: 64 KiB */
/* Blocks to search for a resend, which seldom has more than some segments: raw programs verify each iteration. */
#define SEARCHED_BLOCKS (TYPED ? BLOCKS : 4)
#define MAX_RESEND_NS 130000000000ULL /* the retransmission timer's limit is 120 s: TCP_RTO_MAX */
#define MAX_DELAY_MS 262144	      /* between a packet's time stamp and its drop */
#define CLOCK_SLACK_MS 1000	      /* TCP may stamp a packet that it paces with a later time */
#define ACK_SPAN (1 << 20)	      /* bytes that a peer may have sent since the packet left */
#define ANSWER_SPAN (1 << 16)

struct dropped_packet {
	u64 ts_ns;
	u64 flow; /* hash of both ends, where it was dropped */
	u64 location;
	u32 seq;
	u32 end; /* behind the last number; equal to seq if it has none */
	u32 ack;
	u32 tsval;
	u32 tsecr;
	u32 reason;
	u8 flags;
	u8 timestamps; /* 1: it has them */
	u8 pad[6];
};

struct dropped_set {
	u64 evicted_ns; /* time of the last drop that was evicted */
	u32 next;	/* way to use, modulo DROPPED_WAYS: the oldest */
	u32 pad;
	struct dropped_packet ways[DROPPED_WAYS];
};

/* Set-associative cache by sequence number. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DROPPED_SETS);
	__type(key, u32);
	__type(value, struct dropped_set);
} dropped_packets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct drop_knowledge);
} drop_knowledge SEC(".maps");

static __always_inline u32 dropped_set_of(u32 block)
{
	return (block & BLOCK_NUMBERS) * 2654435761U >> (32 - DROPPED_SETS_LOG2);
}

static __always_inline void put_dropped(u32 block, const struct dropped_packet *packet)
{
	u32 at = dropped_set_of(block);
	struct dropped_set *set = bpf_map_lookup_elem(&dropped_packets, &at);
	struct dropped_packet *slot;
	u64 way;

	if (!set)
		return;
	if (TYPED)
		way = __sync_fetch_and_add(&set->next, 1);
	else
		way = set->next++; /* two CPUs at once may overwrite each other's: the window is some ns */
	way &= DROPPED_WAYS - 1;
	barrier_var(way);
	slot = &set->ways[way & (DROPPED_WAYS - 1)];
	if (slot->ts_ns > set->evicted_ns)
		set->evicted_ns = slot->ts_ns;
	*slot = *packet;
}

/* A SYN-ACK is kept with the number of its SYN, too: the client does not know the server's. */
VERIFIED_ONCE int keep_dropped(const struct dropped_packet *packet)
{
	struct drop_knowledge *knowledge = bpf_map_lookup_elem(&drop_knowledge, &(u32){0});
	u32 first, span;

	if (!packet || !knowledge)
		return 0;
	first = packet->seq >> BLOCK_LOG2;
	span = packet->end == packet->seq
		       ? 0
		       : (((packet->end - 1) >> BLOCK_LOG2) - first) & BLOCK_NUMBERS;
	if (span >= BLOCKS)
		knowledge->long_ns = packet->ts_ns;
	for (u32 i = 0; i < BLOCKS; i++) {
		if (i > span)
			break;
		put_dropped(first + i, packet);
	}
	if ((packet->flags & (FLAG_SYN | FLAG_ACK)) == (FLAG_SYN | FLAG_ACK))
		put_dropped((packet->ack - 1) >> BLOCK_LOG2, packet);
	return 0;
}

static __always_inline u64 hash_of_ends(const void *saddr, u16 sport, const void *daddr, u16 dport)
{
	return key_of_end(0, saddr, sport, daddr, dport);
}

/* -- a resend, and the drops that explain it */

struct resend {
	u64 flow;	 /* hash of its ends */
	u64 back;	 /* the same of its answers */
	u64 earliest_ns; /* the last copy was not sent before */
	u64 since_ns;	 /* the same, with a margin */
	u64 until_ns;
	u32 seq;
	u32 end;
	u32 rcv_nxt;
	u32 snd_nxt;
	u32 ts_offset;
	u8 syn;
	u8 knows_peer;	 /* 1: rcv_nxt is valid */
	u8 microseconds; /* 1: time stamps have another unit than ms */
	u8 seen;	 /* 1: all copies were sent since the start */
};

/* The best drop so far. */
struct found_drop {
	u64 rank; /* 0: none */
	u64 flow; /* of the last one whose addresses differ */
	u32 at;	  /* set and way */
	u8 ambiguous;
	u8 no_room;
	u8 pad[2];
};

/* Rank of a drop: one with the resend's addresses first, then the segment's, then the latest. */
#define RANK_EXACT (1ULL << 63)
#define RANK_SEGMENT (1ULL << 62)

/*
 * Comparisons without branches, 0 or 1: a verifier would walk the rest of the search once for each outcome. The
 * barrier keeps the compiler from making branches of them.
 */
static __always_inline u64 less(u64 one, u64 other)
{
	u64 difference;

	barrier_var(other);
	difference = one - other;
	barrier_var(difference);
	return difference >> 63;
}

static __always_inline u64 comes_before(u32 number, u32 other)
{
	u32 difference = number - other;

	barrier_var(difference);
	return difference >> 31;
}

static __always_inline u64 equal(u64 one, u64 other)
{
	u64 difference = one ^ other;

	difference |= difference >> 32;
	return less((u32)difference, 1);
}

static __always_inline u64 carries(const struct dropped_packet *packet, u8 flag)
{
	return 1 - equal(packet->flags & flag, 0);
}

/* Whether a time stamp that the resend's socket made, or its peer echoed, was made shortly before the drop. */
static __always_inline u64 timestamp_fits(const struct dropped_packet *packet, u32 stamp,
					  const struct resend *resend)
{
	u32 age = (u32)(packet->ts_ns / NSEC_PER_MSEC) - (stamp - resend->ts_offset);

	return (packet->timestamps ^ 1) | resend->microseconds |
	       less((u32)(age + CLOCK_SLACK_MS), MAX_DELAY_MS);
}

/* Whether a packet has a part of the segment. */
static __always_inline u64 is_segment(const struct dropped_packet *packet,
				      const struct resend *resend)
{
	u64 overlaps =
		comes_before(packet->seq, resend->end) & comes_before(resend->seq, packet->end);
	u64 syn_fits = (resend->syn ^ 1) | carries(packet, FLAG_SYN);
	u64 ack_fits = (carries(packet, FLAG_ACK) ^ 1) |
		       (resend->knows_peer & less((u32)(resend->rcv_nxt - packet->ack), ACK_SPAN));

	return overlaps & syn_fits & ack_fits & timestamp_fits(packet, packet->tsval, resend);
}

/* Whether a packet acknowledges the segment. */
static __always_inline u64 is_answer(const struct dropped_packet *packet,
				     const struct resend *resend)
{
	u64 acks = carries(packet, FLAG_ACK) &
		   less((u32)(packet->ack - resend->seq - 1), (u32)(resend->snd_nxt - resend->seq));
	u64 is_peers =
		(resend->knows_peer & less((u32)(packet->seq - resend->rcv_nxt), ANSWER_SPAN)) |
		((resend->knows_peer ^ 1) & carries(packet, FLAG_SYN));

	return acks & is_peers & timestamp_fits(packet, packet->tsecr, resend);
}

/*
 * Whether a packet was dropped after the segment was sent last, and before it is sent now: the drop of this copy
 * may have come before the tracepoint. Only a router that announces a smaller MTU has TCP resend at once.
 */
static __always_inline u64 is_in_time(const struct dropped_packet *packet,
				      const struct resend *resend)
{
	return (less(packet->ts_ns, resend->since_ns) ^ 1) &
	       (less(packet->ts_ns, resend->until_ns) |
		equal(packet->reason, retrans_config.too_big_reason));
}

VERIFIED_ONCE int consider(const struct dropped_packet *packet, const struct resend *resend,
			   struct found_drop *found, u32 at)
{
	u64 segment, rank;

	if (!packet || !resend || !found)
		return 0;
	segment = is_segment(packet, resend);
	if (!((segment | is_answer(packet, resend)) & is_in_time(packet, resend)))
		return 0;
	rank = packet->ts_ns | (segment ? RANK_SEGMENT : 0);
	if (packet->flow == (segment ? resend->flow : resend->back)) {
		rank |= RANK_EXACT;
	} else if (segment) {
		if (found->flow && found->flow != packet->flow)
			found->ambiguous = 1;
		found->flow = packet->flow;
	}
	if (rank > found->rank) {
		found->rank = rank;
		found->at = at;
	}
	return 0;
}

static __always_inline void search_dropped(u32 block, const struct resend *resend,
					   struct found_drop *found)
{
	u32 at = dropped_set_of(block);
	struct dropped_set *set = bpf_map_lookup_elem(&dropped_packets, &at);

	if (!set)
		return;
	if (set->evicted_ns >= resend->earliest_ns)
		found->no_room = 1;
	for (u32 way = 0; way < DROPPED_WAYS; way++) {
		consider(&set->ways[way], resend, found, at * DROPPED_WAYS + way);
		if (!TYPED)
			FORGET_VALUES(found);
	}
}

VERIFIED_ONCE int find_dropped(const struct resend *resend, struct found_drop *found)
{
	u32 first, span;

	if (!resend || !found)
		return 0;
	first = resend->seq >> BLOCK_LOG2;
	span = (((resend->end - 1) >> BLOCK_LOG2) - first) & BLOCK_NUMBERS;
	if (span >= SEARCHED_BLOCKS)
		found->no_room = 1;
	for (u32 i = 0; i < SEARCHED_BLOCKS; i++) {
		if (i > span)
			break;
		search_dropped(first + i, resend, found);
	}
	if (resend->knows_peer)
		search_dropped(resend->rcv_nxt >> BLOCK_LOG2, resend, found);
	return 0;
}

static __always_inline const struct dropped_packet *dropped_at(u32 at)
{
	u32 number = at / DROPPED_WAYS;
	struct dropped_set *set = bpf_map_lookup_elem(&dropped_packets, &number);

	return set ? &set->ways[at & (DROPPED_WAYS - 1)] : NULL;
}

#endif
