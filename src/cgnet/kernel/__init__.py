# SPDX-License-Identifier: BSD-2-Clause
"""Kernel interfaces: libbpf, BTF, buffers, tracepoints, symbols, feature detection."""
