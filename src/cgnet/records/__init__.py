# SPDX-License-Identifier: BSD-2-Clause
"""Records as they cross from the kernel: generated layouts, fields, schemas."""
