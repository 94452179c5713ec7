# SPDX-License-Identifier: BSD-2-Clause
"""The options that all commands share."""
