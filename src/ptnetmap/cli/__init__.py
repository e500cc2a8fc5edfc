# SPDX-License-Identifier: BSD-2-Clause
"""The programs: each parses its command line, calls the library, and prints.

Modules here import nothing heavy at the top, so that ``--help`` and wrong command lines are answered at once.
"""
