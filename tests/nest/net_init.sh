#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# First program of a guest with a network device: gives its peer a file, or fetches it, and powers off. "rate" is in Mbit/s.
# Of the kernel's command line: address=A, peer=B, role=send or receive. Each fact is a line "name: value".
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "$module" || echo "failed: $module"
done </modules
for word in $(cat /proc/cmdline); do
    case $word in
    address=*) address=${word#*=} ;;
    peer=*) peer=${word#*=} ;;
    role=*) role=${word#*=} ;;
    esac
done

echo "driver: $(readlink /sys/class/net/eth0/device/driver | sed 's,.*/,,')"
echo "features: $(cat /sys/class/net/eth0/device/features)"
echo "mac: $(cat /sys/class/net/eth0/address)"
ip address add "$address/24" dev eth0
ip link set eth0 up

tries=0
until ping -c 1 -W 1 "$peer" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -gt 120 ] && echo "failed: no answer from $peer" && poweroff -f
done
echo "ping: $(ping -c 5 -i 0.2 "$peer" | sed -n 's/.* \([0-9]*\) packets received.*/\1/p')"

if [ "$role" = send ]; then
    mkdir /files
    dd if=/dev/urandom of=/files/data bs=65536 count=256 2>/dev/null
    echo "digest: $(md5sum </files/data | cut -d ' ' -f 1)"
    httpd -p 5000 -h /files
    sleep 1000 | nc -l -p 5001 >/answer &
    until [ -s /answer ]; do sleep 0.2; done
    echo "answer: $(cat /answer)"
else
    tries=0
    until wget -q -O /data "http://$peer:5000/data"; do
        tries=$((tries + 1))
        [ $tries -gt 60 ] && echo "failed: no file" && break
        sleep 1
    done
    from=$(cut -d ' ' -f 1 /proc/uptime)
    wget -q -O /data "http://$peer:5000/data"
    to=$(cut -d ' ' -f 1 /proc/uptime)
    echo "rate: $(awk "BEGIN { print 8 * 256 * 65536 / ($to - $from + 0.005) / 1000000 }")"
    digest=$(md5sum </data | cut -d ' ' -f 1)
    echo "digest: $digest"
    echo "$digest" | nc -w 5 "$peer" 5001
fi
for name in rx_packets tx_packets rx_errors rx_dropped; do
    echo "$name: $(cat /sys/class/net/eth0/statistics/$name)"
done
poweroff -f
