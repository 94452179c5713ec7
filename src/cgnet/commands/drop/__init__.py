# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet drop``: dropped packets."""
