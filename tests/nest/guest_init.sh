#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# First program of a guest with one disk, a source of random numbers and a port of a console: says what it finds, then gives a prompt.
# Each fact is a line "name: value", for tests to read.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "$module" || echo "failed: $module"
done </modules

echo "kernel: $(uname -r)"
echo "cpus: $(nproc)"
echo "memory: $(awk '/^MemTotal/ { print $2 }' /proc/meminfo)"
echo "clock: $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
for device in /sys/bus/pci/devices/*; do
    driver=$(readlink "$device/driver")
    echo "pci: ${device##*/} $(cat "$device/vendor") $(cat "$device/device") $(cat "$device/class") ${driver##*/}"
done

# Written sectors are read back from the disk and not from the cache of its pages.
echo "sectors: $(cat /sys/block/vda/size)"
echo "digest: $(md5sum </dev/vda | cut -d ' ' -f 1)"
yes written | dd of=/dev/vda bs=4096 seek=1 count=1 iflag=fullblock conv=fsync 2>/dev/null || echo "failed: write"
echo 3 >/proc/sys/vm/drop_caches
echo "written: $(dd if=/dev/vda bs=4096 skip=1 count=1 2>/dev/null | md5sum | cut -d ' ' -f 1)"

echo "rng: $(cat /sys/class/misc/hw_random/rng_current)"
echo "random: $(dd if=/dev/hwrng bs=32 count=1 iflag=fullblock 2>/dev/null | xxd -p -c 32)"
# What comes by the port goes back.
for port in /dev/vport*; do
    [ -c "$port" ] || continue
    echo "port: $(cat "/sys/class/virtio-ports/${port##*/}/name")"
    exec 4<>"$port"
    head -c 100000 <&4 >/tmp/echo
    cat /tmp/echo >&4
    exec 4>&-
done
sed -n 's/^ *\([0-9]*:.*virtio.*\)/interrupt: \1/p' /proc/interrupts

export PS1='guest# '
setsid cttyhack sh -i
poweroff -f
