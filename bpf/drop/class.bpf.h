/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Class of a drop for fault finding: one rule for records, filters and counts. It uses the kernel's reason,
 * the state of the socket, the contents of the packet and, if these are inconclusive, the function that
 * dropped it.
 */
#ifndef CGNET_DROP_CLASS_BPF_H
#define CGNET_DROP_CLASS_BPF_H

#include "base/location.bpf.h"
#include "base/packet.bpf.h"
#include "drop/time_wait.bpf.h"

CROSSES_TO_USER_SPACE(function_classes);
CONFIG(class_config);
CONFIG(packet_config);

/* Classes of reasons, by number: only user space has the names. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u32);
} drop_classes SEC(".maps");

/* Classes of functions, for drops without a reason, or whose reason has no class. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct function_classes);
} function_classes SEC(".maps");

#define TCP_FLAG_SYN_ALONE 0x02
#define TCP_FLAG_ACK_ALONE 0x10
#define TCP_FLAGS_SYN_ACK 0x12
#define TCP_FLAG_RST_BIT 0x04

static __always_inline bool is_benign_code(u64 location)
{
	for (u32 i = 0; i < CGNET_BENIGN; i++)
		if (is_within(location, &class_config.benign_code[i]))
			return true;
	return false;
}

/* Whether TCP drops packets without a socket here, and packets for TIME_WAIT or a half-open connection. */
static __always_inline bool is_receiving_code(u64 location)
{
	for (u32 i = 0; i < CGNET_RECEIVING; i++)
		if (is_within(location, &class_config.receiving_code[i]))
			return true;
	return false;
}

/* Whether TCP drops packets here that have a socket, and that it answers with a reset. */
static __always_inline bool is_resetting_code(u64 location)
{
	for (u32 i = 0; i < CGNET_RECEIVING; i++)
		if (is_within(location, &class_config.resetting_code[i]))
			return true;
	return false;
}

/*
 * Whether a full accept queue refused the end of a handshake. It has a reason of its own in 6.18; 6.12
 * reports none, and with a SYN cookie each kernel reports a missing socket, but has the listener.
 */
static __always_inline bool is_overflow(u32 reason, struct sock *rx_sk)
{
	if (!rx_sk ||
	    (reason != class_config.not_specified && reason != class_config.no_socket_reason) ||
	    READ(rx_sk, __sk_common.skc_state) != TCP_LISTEN)
		return false;
	return READ(rx_sk, sk_ack_backlog) > READ(rx_sk, sk_max_ack_backlog);
}

static __always_inline bool has_no_reason(const struct drop *drop)
{
	return packet_config.drop_arguments > 2 && drop->reason == class_config.not_specified;
}

/* If no drop has a reason, the function decides: a firewall's is none of these. */
static __always_inline bool may_be_of_time_wait(const struct drop *drop)
{
	return has_no_reason(drop) ||
	       (packet_config.drop_arguments < 3 && is_receiving_code(drop->location));
}

/*
 * After the peer's FIN, TCP discards each segment without data once it has processed its acknowledgement: the
 * end of tcp_rcv_state_process(). Kernels that have reasons report a drop; earlier ones only free it.
 */
static __always_inline bool is_late_ack(const struct drop *drop)
{
	u32 late = 1 << TCP_CLOSE_WAIT | 1 << TCP_LAST_ACK | 1 << TCP_CLOSING;

	return drop->tcp_flags == TCP_FLAG_ACK_ALONE && !drop->payload &&
	       (late >> (drop->tcp_state & 31) & 1) && has_no_reason(drop);
}

/*
 * An acknowledgement that a packet on another CPU overtook has no new information. Its time stamp is old
 * then, a reason of its own since Linux kernel commit 124c4c32e9f3 "tcp: add TCP_RFC7323_PAWS_ACK drop
 * reason" (in v6.14). Or that packet was the last one, and the socket was looked up before its end.
 */
static __always_inline bool is_overtaken_ack(const struct drop *drop)
{
	bool ended = drop->reason == class_config.close_reason && drop->tcp_state == TCP_CLOSE;

	return (ended || drop->reason == class_config.paws_reason) &&
	       drop->tcp_flags == TCP_FLAG_ACK_ALONE && !drop->payload;
}

/* A new connection from a port whose last one is in TIME_WAIT here; an accepted one is not dropped. */
static __always_inline bool is_refused_by_time_wait(const struct drop *drop)
{
	return drop->tcp_state == TCP_TIME_WAIT && has_no_reason(drop) &&
	       (drop->tcp_flags & TCP_FLAGS_SYN_ACK) == TCP_FLAG_SYN_ALONE;
}

/*
 * A segment of a connection that the listener does not know. Its reason is TCP_FLAGS where
 * tcp_rcv_state_process() returns one (6.12, 6.18), else there is none (6.1), and the code that sends the
 * reset identifies it.
 */
static __always_inline bool is_unknown_to_listener(const struct drop *drop)
{
	bool listens = drop->tcp_state == TCP_LISTEN || !sockets_are_told();

	if ((drop->tcp_flags & TCP_FLAGS_SYN_ACK) != TCP_FLAG_ACK_ALONE || !listens)
		return false;
	return drop->reason == class_config.flags_reason ||
	       (has_no_reason(drop) && is_resetting_code(drop->location));
}

/*
 * The receiver had closed, and its kernel answers with a reset: data to a closing socket that has become a
 * TIME_WAIT one, or to the listener of a connection that is gone. The same data at a closing socket has a
 * reason of its own.
 */
static __always_inline bool is_data_after_close(const struct drop *drop)
{
	return (drop->tcp_state == TCP_TIME_WAIT && drop->new_data && may_be_of_time_wait(drop)) ||
	       (drop->payload && is_unknown_to_listener(drop));
}

/*
 * A half-open connection drops packets without new information: a repeated SYN, which it answers again, the
 * reset of a health check, and, with TCP_DEFER_ACCEPT, the last acknowledgement. The kernel reports the
 * listener as its socket.
 */
static __always_inline bool is_for_handshake(const struct drop *drop)
{
	if (!has_no_reason(drop) || drop->payload)
		return false;
	if (sockets_are_told())
		return drop->tcp_state == TCP_LISTEN;
	if (drop->tcp_state || !is_receiving_code(drop->location))
		return false;
	if (drop->tcp_flags & TCP_FLAG_RST_BIT)
		return true;
	/* Or for a connection in TIME_WAIT: later than this after the start, all of these are known. */
	return drop->tcp_flags == TCP_FLAG_SYN_ALONE &&
	       bpf_ktime_get_ns() > class_config.start_ns + TIME_WAIT_NS;
}

/* Healthy closes drop packets, too: those for TIME_WAIT, and those for a listener after an abort. */
static __always_inline bool is_benign(const struct drop *drop)
{
	if (is_benign_code(drop->location) || is_late_ack(drop) || is_overtaken_ack(drop))
		return true;
	if (drop->tcp_state == TCP_TIME_WAIT && may_be_of_time_wait(drop))
		return !drop->new_data && !is_refused_by_time_wait(drop);
	return is_for_handshake(drop) || (!drop->payload && is_unknown_to_listener(drop));
}

static __always_inline u32 class_of_function(u64 location)
{
	struct function_classes *all = bpf_map_lookup_elem(&function_classes, &(u32){0});

	if (!all)
		return DROP_UNKNOWN;
	for (u32 i = 0; i < CGNET_FUNCTION_CLASSES; i++)
		if (is_within(location, &all->code[i]))
			return all->drop_class[i];
	return DROP_UNKNOWN;
}

VERIFIED_ONCE u32 class_of(const struct drop *drop)
{
	u32 reason, *class;

	if (!drop)
		return DROP_UNKNOWN;
	reason = drop->reason;
	if (is_benign(drop))
		return DROP_BENIGN;
	if (is_data_after_close(drop))
		return DROP_APPLICATION;
	if (is_refused_by_time_wait(drop))
		return DROP_PEER;
	if (drop->own_filter && reason == class_config.filter_reason)
		return DROP_APPLICATION;
	class = bpf_map_lookup_elem(&drop_classes, &reason);
	return class ? *class : class_of_function(drop->location);
}

#endif
