# SPDX-License-Identifier: BSD-2-Clause
"""One run of a command: launch, read, watch cgroups, count losses."""
