# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet trace``: packets on their path through the stack."""
