#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# First program of a guest whose root file system is on its disk: loads the drivers and hands over to init there.
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "$module" || echo "failed: $module"
done </modules
mount -t ext4 /dev/vda /new || echo "failed: mount"
exec switch_root /new /sbin/init
