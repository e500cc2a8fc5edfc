#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# What a guest does once its root file system is mounted; its init runs this once. Facts are lines "name: value".
# Of the kernel's command line, task=
#   live     the first boot writes a file and reboots; the next one reads it, works, and listens to the power button
#   write    writes files for ever, and says of each when it is on the disk
#   verify   reads the first of them, and does nothing when the power button is pressed
digest() {
    sha256sum | cut -d ' ' -f 1
}

# What a processor makes of /first, and which one that was.
if [ "$1" = compute ]; then
    for _ in 1 2 3; do
        echo "computed: $(awk '{ print $39 }' /proc/self/stat) $(digest </first)"
    done
    exit
fi

live() {
    if [ ! -e /first ]; then
        dd if=/dev/urandom of=/first bs=64k count=16 iflag=fullblock 2>/dev/null
        echo "written: $(digest </first)"
        reboot
        return
    fi
    echo "read: $(digest </first)"
    work
    insmod /lib/evdev.ko
    insmod /lib/button.ko
    exec 3</dev/input/event0
    echo "listening: yes"
    head -c 24 <&3 >/dev/null # one event
    poweroff
}

# All processors compute while the disk is read, past the cache.
work() {
    for cpu in $(seq 0 $(($(nproc) - 1))); do
        taskset -c "$cpu" /etc/rc compute &
    done
    for _ in 1 2 3; do
        echo 1 >/proc/sys/vm/drop_caches
        echo "disk: $(digest </first)"
    done
    wait
}

write() {
    mkdir -p /files
    number=0
    while true; do
        number=$((number + 1))
        dd if=/dev/urandom of="/files/$number" bs=64k count=1 iflag=fullblock 2>/dev/null
        sync
        echo "synced: $number $(digest <"/files/$number")"
    done
}

verify() {
    for number in 1 2 3; do
        echo "found: $number $(digest <"/files/$number")"
    done
    insmod /lib/button.ko
    echo "listening: no"
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
echo "root: $(awk '$2 == "/" && $1 != "rootfs" { print $1, $3, substr($4, 1, 2) }' /proc/mounts)"
task=$(sed 's/.*task=\([a-z]*\).*/\1/' /proc/cmdline)
echo "task: $task"
"$task"
