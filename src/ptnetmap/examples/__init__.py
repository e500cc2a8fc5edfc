# SPDX-License-Identifier: BSD-2-Clause
"""Code to start from: :mod:`~ptnetmap.examples.lookups` has four switches that are not learning bridges."""
