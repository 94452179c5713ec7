# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet why``: ranked findings, from all signals at once."""
