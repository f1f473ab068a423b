#!/bin/sh
# Makes sure that ip and iptables are there, with which the cluster tests cut networks
# between replicas. On Debian and Ubuntu, as root, they are installed; elsewhere those
# tests are skipped, and say so.
set -eu

PATH=$PATH:/usr/sbin:/sbin
missing=
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v iptables >/dev/null 2>&1 || missing="$missing iptables"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "not installed:$missing: tests of network partitions will be skipped" >&2
	exit 0
fi
echo "installing with apt-get, for tests of network partitions:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # one word a package
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >"$log" 2>&1; }
# A machine that was just set up has no package lists yet.
if ! install && ! { apt-get update >"$log" 2>&1 && install; }; then
	tail -n 5 "$log" >&2
	echo "apt-get could not install$missing; its last lines are above" >&2
	exit 1
fi
