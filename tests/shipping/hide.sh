#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Run a command where the system has no libbpf, no libelf, no clang and no headers.
#   hide.sh COMMAND…        in a mount namespace of its own, as root
set -euo pipefail

if [[ ${HIDDEN:-} != yes ]]; then
	HIDDEN=yes exec unshare --mount --propagation private -- "$0" "$@"
fi
shopt -s nullglob
mount -t tmpfs none /usr/include
for each in /usr/lib*/lib{bpf,elf}[.-]* /usr/lib/*/lib{bpf,elf}[.-]* /usr/local/lib*/lib{bpf,elf}[.-]* \
	/usr/bin/clang* /usr/lib/llvm-*/bin/clang*; do
	if [[ -f $each && ! -L $each ]]; then mount --bind /dev/null "$each"; fi
done
unset HIDDEN
exec "$@"
