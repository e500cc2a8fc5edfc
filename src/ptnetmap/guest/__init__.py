# SPDX-License-Identifier: BSD-2-Clause
"""The built-in guest: Python compiled to a freestanding image, for machines that have nothing else to boot.

:func:`~ptnetmap.guest.image.built_in` gives the image and :func:`~ptnetmap.guest.load.load` puts it into guest memory;
neither needs a compiler once the image is cached. Inside the image, :mod:`~ptnetmap.guest.main` starts one of the
*programs* (:mod:`~ptnetmap.guest.selftest`, :mod:`~ptnetmap.guest.spin`), which use drivers that are *routines*:
functions of integers that run unchanged in the guest, compiled, and in a test, interpreted
(:mod:`~ptnetmap.guest.routine`). All of it runs at privilege level 3, over a few lines of assembly at level 0
(:mod:`~ptnetmap.guest.stub`): so it is equally fast on every kind of KVM.
"""
