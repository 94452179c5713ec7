# SPDX-License-Identifier: BSD-2-Clause
"""Who owns a socket: cgroups, containers, processes, network namespaces."""
