#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A C compiler for this machine with the C library that wheels promise: ziglang in build/zig.
PYTHONPATH=$(dirname "$0")/../build/zig exec python3 -m ziglang cc \
	-target "$(uname -m)-linux-gnu.2.28" "$@"
