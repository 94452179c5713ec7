# SPDX-License-Identifier: BSD-2-Clause
"""The subcommands: each module of this package is one, found by its name.

A module has ``HELP`` (one line), ``COMMAND`` (a session.Command) and ``command`` (a click command).
"""
