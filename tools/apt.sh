#!/usr/bin/env bash
# Make sure that the programs which the lab, the tests and the demo call are here. Never fails for an ordinary
# user: what is missing is named, and what needs it says so itself.
set -eu
declare -A owner=(
    [ip]=iproute2 [nft]=nftables [tmux]=tmux [ps]=procps [unshare]=util-linux [nsenter]=util-linux
    [setpriv]=util-linux [vi]=vim-tiny
)
has() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }
missing=()
for program in "${!owner[@]}"; do
    has "$program" || missing+=("${owner[$program]}")
done
[ ${#missing[@]} -gt 0 ] || exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "omview: some programs are missing; as root: apt-get install ${missing[*]}" >&2
    exit 0
fi
echo "installing ${missing[*]} ..."
export DEBIAN_FRONTEND=noninteractive
{ apt-get -qq update && apt-get -qq -y install --no-install-recommends "${missing[@]}"; } </dev/null >/dev/null || {
    echo "omview: apt-get could not install: ${missing[*]}" >&2
    echo "  hint: look at: apt-get install ${missing[*]}" >&2
    exit 1
}
