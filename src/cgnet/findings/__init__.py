# SPDX-License-Identifier: BSD-2-Clause
"""From what was seen to what it means: evidence, advice, verdicts."""
