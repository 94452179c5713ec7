# SPDX-License-Identifier: BSD-2-Clause
"""One run of a command: load, read records, watch cgroups, count losses."""
