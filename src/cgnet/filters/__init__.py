# SPDX-License-Identifier: BSD-2-Clause
"""Filters of a run, from options to maps of the kernel side."""
