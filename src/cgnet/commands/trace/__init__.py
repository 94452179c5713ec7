# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet trace``: packets on their way through the stack."""
