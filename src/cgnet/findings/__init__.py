# SPDX-License-Identifier: BSD-2-Clause
"""Conclusions from records: evidence, advice, verdicts."""
