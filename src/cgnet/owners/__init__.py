# SPDX-License-Identifier: BSD-2-Clause
"""Owners of sockets: cgroups, containers, processes, network namespaces."""
