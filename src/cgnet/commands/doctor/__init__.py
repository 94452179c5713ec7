# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet doctor``: what this host lets cgnet do."""
