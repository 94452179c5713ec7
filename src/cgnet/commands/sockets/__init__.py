# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet sockets``: the open TCP sockets of all network namespaces."""
