# SPDX-License-Identifier: BSD-2-Clause
"""Records that the kernel side sends: generated layouts, fields, schemas."""
