# SPDX-License-Identifier: BSD-2-Clause
"""Virtual machines with a name that stays: what is behind ``ptnetmap vm``.

A machine is a directory with a readable ``vm.toml`` (:mod:`~ptnetmap.vm.definition`), kept by
:mod:`~ptnetmap.vm.store`; :mod:`~ptnetmap.vm.images` looks at disk images before a guest does,
:mod:`~ptnetmap.vm.seed` and :mod:`~ptnetmap.vm.iso9660` make seeds for cloud-init, :mod:`~ptnetmap.vm.keeper` runs
bhyve again whenever the guest rebooted, :mod:`~ptnetmap.vm.run` starts and stops that, and
:mod:`~ptnetmap.vm.console` attaches a terminal.
"""
