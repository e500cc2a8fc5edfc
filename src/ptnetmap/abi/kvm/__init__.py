# SPDX-License-Identifier: BSD-2-Clause
"""What /dev/kvm and its users exchange, on x86-64: API version 12.

:mod:`~ptnetmap.abi.kvm.ioctl` has the numbers of requests and capabilities, :mod:`~ptnetmap.abi.kvm.machine` the
arguments for a whole machine (memory, interrupts, I/O events), :mod:`~ptnetmap.abi.kvm.cpu` a processor's registers,
:mod:`~ptnetmap.abi.kvm.run` the page through which it is run. Source: Linux, Documentation/virt/kvm/api.rst,
include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h.
"""
