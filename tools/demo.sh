#!/usr/bin/env bash
# A cluster of three hosts on this machine with a few jobs, and the app on the first one. Leaves nothing behind.
# Without a terminal it moves a job from host to host and prints what happens, in place of the app.
# usage: demo.sh [COMMAND...]    COMMAND runs on node1 in place of the app
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$here/.." && pwd)/.venv/bin
omview=$bin/omview
lab=demo
room=$(mktemp -d "${XDG_CACHE_HOME:-$HOME}/.omview-demo.XXXXXX") # every host sees it, unlike /tmp

finish() {
    trap - EXIT INT TERM
    "$omview" lab down --name "$lab" >/dev/null 2>&1 || true
    rm -rf "$room"
}
trap finish EXIT
trap 'finish; exit 130' INT TERM

on() { "$omview" lab exec --name "$lab" "$@"; }
job() { on "$1" -- "$omview" run --detach --name "$2" -- "${@:3}" >/dev/null; }

"$omview" lab up --name "$lab" -n 3
job node1 counter bash -c 'while :; do echo "$(uname -n): $((i += 1))"; sleep 1; done'
job node1 primes "$bin/python" "$here/jobs/primes.py" 16
job node1 ledger "$bin/python" "$here/jobs/ledger.py" "$room/ledger.db"
job node2 words bash -c 'while :; do seq 1 20000 | sort -R | sort -n | tail -1; sleep 0.2; done'

if [ $# -gt 0 ]; then
    on node1 -- "$@"
    exit
fi
if [ -t 0 ] && [ -t 1 ]; then
    on node1 -- "$omview"
    exit
fi
on node1 -- "$omview" nodes
on node1 -- "$omview" jobs
for target in node2 node3 home; do
    on node1 -- "$omview" migrate counter "$target"
done
on node1 -- "$omview" logs counter
