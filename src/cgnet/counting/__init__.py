# SPDX-License-Identifier: BSD-2-Clause
"""Aggregates that the kernel keeps: keys, tables, histograms."""
