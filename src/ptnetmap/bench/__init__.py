# SPDX-License-Identifier: BSD-2-Clause
"""The benchmark: what this machine could do at best, and how close the runtime comes.

A *case* is one thing to measure; a *roofline* is a case that moves packets with nothing around it, the bare loops of
:mod:`~ptnetmap.bench.roofline`. :mod:`~ptnetmap.bench.frame` runs a case and its roofline in turn and reports the
ratio, because a ratio from the same minute on the same cores says more than an absolute rate.
:mod:`~ptnetmap.bench.cases` lists all cases.
"""
