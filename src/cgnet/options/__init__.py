# SPDX-License-Identifier: BSD-2-Clause
"""The grammar of options that all commands share."""
