#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# First program of a guest with Python: runs a program of this directory, and powers off.
# Of the kernel's command line: python=FILE and program=FILE,ARGUMENT
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
while read -r module; do
    insmod "$module" || echo "failed: $module"
done </modules
ifconfig lo up
export HOME=/root NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES=
for word in $(cat /proc/cmdline); do
    value=${word#*=}
    case $word in
    python=*) python=$value ;;
    program=*) program=$value ;;
    cache=*) export PTNETMAP_CACHE_DIR="$value" ;;
    esac
done
echo "ready: $(cut -d ' ' -f 1 /proc/uptime)"
"$python" $(echo "$program" | tr , ' ') || echo "failed: $?"
poweroff -f
