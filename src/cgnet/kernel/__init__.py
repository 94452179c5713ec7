# SPDX-License-Identifier: BSD-2-Clause
"""The kernel as cgnet meets it: libbpf, BTF, buffers, tracepoints, symbols, and what a kernel can do."""
