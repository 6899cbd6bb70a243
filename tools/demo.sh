#!/usr/bin/env bash
# A cluster of three hosts on this machine with a few jobs, and the app on the first one. Leaves nothing behind.
# Without a terminal it moves a job from host to host and prints what happens, in place of the app.
# usage: demo.sh [COMMAND...]    COMMAND runs on node1 in place of the app
set -eu
omview=$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/omview
lab=demo

if "$omview" lab status --name "$lab" >/dev/null 2>&1; then
    echo "omview: a demo is up already" >&2
    echo "  hint: look at it: $omview lab exec --name $lab node1 -- omview" >&2
    echo "        or end it:  $omview lab down --name $lab" >&2
    exit 1
fi

finish() {
    trap - EXIT INT TERM HUP
    "$omview" lab down --name "$lab" >/dev/null 2>&1 || true
}
trap finish EXIT
trap 'finish; exit 130' INT TERM HUP

on() { "$omview" lab exec --name "$lab" "$@"; }

"$omview" lab up --name "$lab" -n 3 --jobs
if [ $# -gt 0 ]; then
    on node1 -- "$@"
elif [ -t 0 ] && [ -t 1 ]; then
    on node1 -- "$omview"
    finish
    echo "The demo is over; its hosts and jobs are gone."
else
    for _ in $(seq 30); do # until everybody has heard of everybody
        [ "$(on node1 -- "$omview" nodes --json | grep -c '"up"')" = 3 ] && break
        sleep 1
    done
    on node1 -- "$omview" nodes
    on node1 -- "$omview" jobs
    for target in node2 node3 home; do
        on node1 -- "$omview" migrate primes "$target"
    done
    on node1 -- "$omview" jobs
    on node1 -- "$omview" logs primes | tail -3
fi
