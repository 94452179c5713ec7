# SPDX-License-Identifier: BSD-2-Clause
"""What a run selects, from options to the maps of the kernel side."""
