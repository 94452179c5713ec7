# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet doctor``: the abilities of cgnet on this host."""
