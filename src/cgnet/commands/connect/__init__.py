# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet connect`` and the code that ``cgnet connlat`` shares with it."""
