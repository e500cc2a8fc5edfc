#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# In a nest: guests of bhyve with a port of a switch that is passed through, first the built-in one, then Linux.
# bhyve_ptnet.sh KERNEL INITRAMFS CMDLINE: what each says, after a line "== NAME" each.
here=$(cd "$(dirname "$0")" && pwd)
kernel=$1 initramfs=$2 cmdline=$3
export PATH=$here/../../.venv/bin:$PATH
# What the machine outside has compiled for any processor.
export NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES= NETMAP_SOCKET=/run/netmapd

# guest NAME SECONDS OPTIONS...: run one until it powers off.
guest() {
    name=$1 seconds=$2
    shift 2
    timeout "$seconds" bhyve -A -H -P -c 1 -s 0,hostbridge -s 1,lpc -l com1,stdio -s 2,ptnetmap-memdev -s 3,ptnet,ptvale0:vm,lossless \
        "$@" "$name" </dev/null >"/run/$name" 2>&1
    echo "status: $?" >>"/run/$name"
}

netmapd --idle 100 >/dev/null || exit
pkt-gen -i vale0:sink -f rx >/dev/null 2>&1 &
sink=$!
for attempt in 1 2 3; do # under QEMU's emulation of SVM the built-in guest does not always come to its end
    guest builtin 40 -m 256M -o "cmdline=program=pkt-gen function=tx ms=5000"
    grep -q "pkt-gen: done" /run/builtin && break
done
guest linux 450 -m 1500M -o "kernel=$kernel" -o "initrd=$initramfs" -o "cmdline=$cmdline" &
linux=$!
# said TEXT: the guest has said it, or has ended.
said() {
    grep -q "$1" /run/linux || ! kill -0 $linux 2>/dev/null
}

for pair in "recv=received" "pkt-gen=received by pkt-gen" "capture=captured" "interrupts=received by interrupts"; do
    until said "receiving: ${pair%%=*}"; do
        sleep 0.2
    done
    # It may have said so a while before its port is open: what came until then is lost.
    until said "^${pair#*=}: "; do
        pkt-gen -i vale0:source -f tx -n 64 -w 1 >/run/sent 2>&1
        for look in $(seq 75); do
            said "^${pair#*=}: " && break
            sleep 0.2
        done
    done
done
wait $linux
kill $sink
for name in builtin linux sent; do
    echo "== $name"
    cat "/run/$name"
done
