#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Compile each header of bpf/ alone, for both objects: `make lint`. The arguments are clang and its options.
set -u
status=0
for header in bpf/*/*.h; do
	for typed in 0 1; do
		if ! errors=$("$@" -mcpu=v3 -DTYPED=$typed -Wno-unused -include bpf/vmlinux.h -fsyntax-only -x c "$header" 2>&1); then
			echo "$header doesn't compile alone (TYPED=$typed):" >&2
			echo "$errors" | grep -m 3 error: >&2
			status=1
		fi
	done
done
exit $status
