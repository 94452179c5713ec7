/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Location of the code that freed a packet. */
#ifndef CGNET_BASE_LOCATION_BPF_H
#define CGNET_BASE_LOCATION_BPF_H

#include "base/program.bpf.h"
#include "abi/packet.h"

CROSSES_TO_USER_SPACE(code_range);
CONFIG(packet_config);

#define FREEING_FRAMES 8 /* the first of them lead from kfree_skb to here */

static __always_inline bool is_within(u64 location, const volatile struct code_range *code)
{
	return location >= code->start && location < code->end;
}

static __always_inline bool is_freeing_code(u64 location)
{
	for (u32 i = 0; i < CGNET_FREEING; i++)
		if (is_within(location, &packet_config.freeing_code[i]))
			return true;
	return false;
}

/*
 * gcc may split kfree_skb(). The tracepoint is then in the second part, and reports the first part as the
 * caller: Linux kernel commit c205cc7534a9 "net: skb: prevent the split of kfree_skb_reason() by gcc" (in
 * v6.1). The stack has the caller behind it. kfree_skb_list() is not the code that drops a packet, either.
 * Frames are read one by one: the programs' own stacks have no room for several.
 */
static __always_inline u64 caller_of_free(void *ctx, u64 location)
{
	bool reached = false;
	u64 frame = 0; /* on a kernel 5.4 the helper reads the buffer that it fills */

	if (likely(!is_freeing_code(location)))
		return location;
	for (u32 skipped = 0; skipped < FREEING_FRAMES; skipped++) {
		if (bpf_get_stack(ctx, &frame, sizeof(frame), skipped) != sizeof(frame))
			break;
		if (reached && !is_freeing_code(frame))
			return frame;
		reached = reached || frame == location;
	}
	return location;
}

#endif
