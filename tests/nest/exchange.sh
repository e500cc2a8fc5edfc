# SPDX-License-Identifier: BSD-2-Clause
# Functions for two machines that exchange a file over TCP, and facts about it as lines "name: value".

# wait_for PEER: until it answers.
wait_for() {
    tries=0
    until ping -c 1 -W 1 "$1" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -gt 120 ] && echo "failed: no answer from $1" && return 1
    done
    echo "ping: $(ping -c 5 -i 0.2 "$1" | sed -n 's/.* \([0-9]*\) packets received.*/\1/p')"
}

# send PORT MEGABYTES: give a file of random bytes to who asks for it, until they say what they got at the port after it.
send() {
    mkdir -p "/tmp/$1"
    dd if=/dev/urandom of="/tmp/$1.data" bs=65536 count=$((16 * $2)) 2>/dev/null
    echo "digest: $(md5sum <"/tmp/$1.data" | cut -d ' ' -f 1)"
    sleep 1000 | nc -l -p "$(($1 + 1))" >"/tmp/$1.answer" &
    httpd -p "$1" -h "/tmp/$1"
    sleep 1
    mv "/tmp/$1.data" "/tmp/$1/data" # who has fetched it finds that nc listens
    until [ -s "/tmp/$1.answer" ]; do sleep 0.2; done
    echo "answer: $(cat "/tmp/$1.answer")"
}

# receive PORT MEGABYTES PEER: fetch its file, and tell it the digest; "rate" is in Mbit/s.
receive() {
    tries=0
    from=$(cut -d ' ' -f 1 /proc/uptime)
    until wget -q -O /tmp/data "http://$3:$1/data" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -gt 300 ] && echo "failed: no file" && return
        sleep 0.5
        from=$(cut -d ' ' -f 1 /proc/uptime)
    done
    to=$(cut -d ' ' -f 1 /proc/uptime)
    echo "rate: $(awk "BEGIN { print 8 * $2 * 1048576 / ($to - $from + 0.005) / 1000000 }")"
    digest=$(md5sum </tmp/data | cut -d ' ' -f 1)
    echo "digest: $digest"
    echo "$digest" | nc -w 5 "$3" "$(($1 + 1))"
}
