# SPDX-License-Identifier: BSD-2-Clause
"""Which container's TCP is slow, failing or losing packets, and why."""

__version__ = "0.1.0"
