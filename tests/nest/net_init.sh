#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# First program of a guest with network devices: exchanges files with its peers, and powers off. exchange.sh precedes it.
# Of the kernel's command line: megabytes=N of a file, and in the order in which it is to be done
#   DEVICE=ADDRESS,PEER,ROLE,PORT   send or receive a file
#   reload=PARAMETERS               load the driver anew, with parameters
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "$module" || echo "failed: $module"
done </modules

# with DEVICE ADDRESS PEER ROLE PORT
with() {
    echo "driver: $(readlink "/sys/class/net/$1/device/driver" | sed 's,.*/,,')"
    echo "features: $(cat "/sys/class/net/$1/device/features")"
    ifconfig "$1" "$2" netmask 255.255.255.0 up
    wait_for "$3" || return
    sent=$(cat "/sys/class/net/$1/statistics/tx_packets")
    "$4" "$5" "$megabytes" "$3"
    echo "sent: $(($(cat "/sys/class/net/$1/statistics/tx_packets") - sent))"
    for name in rx_errors rx_dropped; do
        echo "$name: $(cat "/sys/class/net/$1/statistics/$name")"
    done
}

for word in $(cat /proc/cmdline); do
    value=${word#*=}
    case $word in
    megabytes=*) megabytes=$value ;;
    eth*=*) with "${word%%=*}" $(echo "$value" | tr , ' ') ;;
    reload=*)
        rmmod virtio_net || echo "failed: rmmod"
        insmod /lib/virtio_net.ko $(echo "$value" | tr , ' ') || echo "failed: reload"
        ;;
    esac
done
poweroff -f
