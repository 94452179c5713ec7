# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet connect`` and what ``cgnet connlat`` shares with it."""
