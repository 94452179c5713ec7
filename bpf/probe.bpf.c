/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Feature probes: one tiny program for each feature, with maps of its own, so that a refused program costs
 * only its own answer. src/cgnet/kernel/probes.py loads one at a time; the programs do nothing if they run.
 *
 * Nothing here leaves a CO-RE relocation: with a single one in the object, libbpf would read the kernel's
 * whole BTF at each load, even for a map.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* Constants of linux/bpf.h that vmlinux.h does not have. */
enum probed_constants {
	PROBED_PERF_EVENT_ARRAY = 4,
	PROBED_LPM_TRIE = 11,
	PROBED_ARRAY_OF_MAPS = 12,
	PROBED_SK_STORAGE = 24,
	PROBED_F_NO_PREALLOC = 1 << 0,
	PROBED_F_CLONE = 1 << 9,
	PROBED_STORAGE_CREATE = 1 << 0,
};

/* Kinds of hook */

SEC("tp_btf/inet_sock_set_state")
int probe_tp_btf(void *ctx)
{
	return 0;
}

SEC("raw_tp/inet_sock_set_state")
int probe_raw_tp(void *ctx)
{
	return 0;
}

SEC("fentry/tcp_v4_connect")
int probe_fentry(void *ctx)
{
	return 0;
}

SEC("fexit/tcp_v4_connect")
int probe_fexit(void *ctx)
{
	return 0;
}

SEC("kprobe/tcp_v4_connect")
int probe_kprobe(void *ctx)
{
	return 0;
}

SEC("kretprobe/tcp_v4_connect")
int probe_kretprobe(void *ctx)
{
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_connect")
int probe_tracepoint(void *ctx)
{
	return 0;
}

/* Helpers and instructions */

/* Linux kernel commit 3ca1032ab7ab "bpf: Implement get_current_task_btf and RET_PTR_TO_BTF_ID"
 * (in v5.11). */
SEC("tp_btf/inet_sock_set_state")
int probe_task_btf(void *ctx)
{
	return !bpf_get_current_task_btf();
}

/* Linux kernel commit 478cfbdf5f13 "bpf: Add bpf_skc_to_{tcp, tcp_timewait, tcp_request}_sock()
 * helpers" (in v5.9). */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(probe_tcp_sock, struct sock *sk)
{
	return !bpf_skc_to_tcp_sock(sk);
}

/* Linux kernel commit c5dbb89fc2ac "bpf: Expose bpf_get_socket_cookie to tracing programs" (in
 * v5.12). */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(probe_socket_cookie, struct sock *sk)
{
	return !bpf_get_socket_cookie(sk);
}

/* Linux kernel commit 5ffa25502b5a "bpf: Add instructions for atomic_[cmp]xchg" (in v5.12). */
SEC("raw_tp/inet_sock_set_state")
int probe_compare_and_swap(void *ctx)
{
	u64 value = (u64)ctx;

	return __sync_val_compare_and_swap(&value, 0, 1) != 0;
}

/*
 * Context of the iterator, the same since Linux kernel commit eaaacd23910f "bpf: Add task and task/file
 * iterator targets" (in v5.8). Linux kernel commit 4f19cab76136 "bpf: Add a bpf_sock_from_file helper" (in
 * v5.11) added bpf_sock_from_file.
 */
SEC("iter/task_file")
int probe_task_file(u64 *ctx)
{
	struct file *file = (struct file *)ctx[3];

	if (file)
		bpf_sock_from_file(file);
	return 0;
}

/*
 * Linux kernel commits a5cbe05a6673 "bpf: Implement bpf iterator for map elements" and 5ce6e77c7edf "bpf:
 * Implement bpf iterator for sock local storage map" (in v5.9) added iterators over maps. Some builds of
 * newer kernels refuse them.
 */
SEC("iter/bpf_map_elem")
int probe_map_elem(void *ctx)
{
	return 0;
}

SEC("iter/bpf_sk_storage_map")
int probe_storage_elem(void *ctx)
{
	return 0;
}

/* Maps */

/* Linux kernel commit 457f44363a88 "bpf: Implement BPF ring buffer and verifier support for it" (in
 * v5.8). */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024); /* at least one page of any size */
} probe_ring SEC(".maps");

SEC("raw_tp/inet_sock_set_state")
int probe_ring_buffer(void *ctx)
{
	void *record = bpf_ringbuf_reserve(&probe_ring, sizeof(u64), 0);

	if (record)
		bpf_ringbuf_discard(record, 0);
	return 0;
}

struct {
	__uint(type, PROBED_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(u32));
} probe_perf SEC(".maps");

SEC("raw_tp/inet_sock_set_state")
int probe_perf_buffers(void *ctx)
{
	u64 record = 0;

	return bpf_perf_event_output(ctx, &probe_perf, 0, &record, sizeof(record)) != 0;
}

/* Linux kernel commit 8e4597c627fb "bpf: Allow using bpf_sk_storage in FENTRY/FEXIT/RAW_TP" (in
 * v5.11). */
struct {
	__uint(type, PROBED_SK_STORAGE);
	__uint(map_flags, PROBED_F_CLONE | PROBED_F_NO_PREALLOC);
	__type(key, int);
	__type(value, u64);
} probe_storage SEC(".maps");

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(probe_socket_storage, struct sock *sk)
{
	return !bpf_sk_storage_get(&probe_storage, sk, NULL, PROBED_STORAGE_CREATE);
}

struct probe_prefix {
	u32 length;
	u8 address[16];
};

struct {
	__uint(type, PROBED_LPM_TRIE);
	__uint(map_flags, PROBED_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct probe_prefix);
	__type(value, u8);
} probe_trie SEC(".maps");

SEC("raw_tp/inet_sock_set_state")
int probe_lpm_trie(void *ctx)
{
	struct probe_prefix prefix = {}; /* no constant: constants are a map of their own */

	return !bpf_map_lookup_elem(&probe_trie, &prefix);
}

struct probe_inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
};

struct {
	__uint(type, PROBED_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct probe_inner);
} probe_outer SEC(".maps");

SEC("raw_tp/inet_sock_set_state")
int probe_array_of_maps(void *ctx)
{
	u32 first = 0;
	void *inner = bpf_map_lookup_elem(&probe_outer, &first);

	return inner && !bpf_map_lookup_elem(inner, &first);
}

/* Size that bpf_get_stack() returned; src/cgnet/kernel/probes.py renames its thread to run the program. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, s64);
} probe_frames SEC(".maps");

SEC("raw_tp/task_rename")
int probe_stack(void *ctx)
{
	u64 frames[16] = {};
	u32 first = 0;
	s64 *size = bpf_map_lookup_elem(&probe_frames, &first);

	if (size)
		*size = bpf_get_stack(ctx, frames, sizeof(frames), 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
