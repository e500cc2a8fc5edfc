#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# In a nest: two guests of bhyve on a switch, the first one on a tap device, too, whose other end is the nest.
# bhyve_net.sh MEGABYTES KERNEL INITRAMFS CMDLINE: what the nest and each guest say, after a line "== NAME" each.
here=$(dirname "$0")
. "$here/exchange.sh"
megabytes=$1 kernel=$2 initramfs=$3 cmdline=$4
mkdir /run/applets
busybox --install -s /run/applets
export PATH=$here/../../.venv/bin:$PATH:/run/applets
# What the machine outside has compiled for any processor.
export NUMBA_CPU_NAME=generic NETMAP_SOCKET=/run/netmapd
modprobe tun || insmod "$(find "/lib/modules/$(uname -r)/" -name 'tun.ko*')"

# guest NUMBER DEVICES WORDS: run one until it powers off.
guest() {
    bhyve -A -H -P -c 1 -m 256M -s 0,hostbridge -s 1,lpc -l com1,stdio $2 \
        -o "kernel=$kernel" -o "initrd=$initramfs" -o "cmdline=$cmdline megabytes=$megabytes $3" \
        "guest$1" </dev/null >"/run/guest$1" 2>&1
    echo "status: $?" >>"/run/guest$1"
}

netmapd --idle 60 >/dev/null || exit
guest 1 "-s 4,virtio-net,vale0:1 -s 5,virtio-net,tap0" \
    "eth0=10.0.0.1,10.0.0.2,send,5000 eth1=10.0.1.1,10.0.1.2,receive,5010 eth1=10.0.1.1,10.0.1.2,send,5020 \
reload=csum=0,gso=0 eth0=10.0.0.1,10.0.0.2,send,5030" &
first=$!
guest 2 "-s 4,virtio-net,vale0:2" \
    "eth0=10.0.0.2,10.0.0.1,receive,5000 reload=csum=0,gso=0 eth0=10.0.0.2,10.0.0.1,receive,5030" &
second=$!

echo "== nest"
until [ -e /sys/class/net/tap0 ]; do sleep 0.2; done
ifconfig tap0 10.0.1.2 netmask 255.255.255.0 up
send 5010 "$megabytes"
receive 5020 "$megabytes" 10.0.1.1
wait $first $second
for number in 1 2; do
    echo "== guest$number"
    cat "/run/guest$number"
done
