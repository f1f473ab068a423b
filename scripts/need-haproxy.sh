#!/bin/sh
# Makes sure that HAProxy is there, which the tests of deploy/haproxy.cfg start. On
# Debian and Ubuntu it is installed; elsewhere those tests are skipped, and say so.
set -eu

[ -x /usr/sbin/haproxy ] && exit 0
command -v haproxy >/dev/null 2>&1 && exit 0
if ! command -v apt-get >/dev/null 2>&1; then
	echo "haproxy is not installed: the tests of deploy/haproxy.cfg will be skipped" >&2
	exit 0
fi

sudo=
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		echo "haproxy is not installed: the tests of deploy/haproxy.cfg will be skipped. As root, run: apt-get install haproxy" >&2
		exit 0
	fi
	sudo=sudo
fi
echo "haproxy is missing: installing it with apt-get, for the tests of deploy/haproxy.cfg"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() { DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y --no-install-recommends haproxy >"$log" 2>&1; }
# A machine that was just set up has no package lists yet.
if ! install && ! { $sudo apt-get update >"$log" 2>&1 && install; }; then
	tail -n 5 "$log" >&2
	echo "apt-get could not install haproxy; its last lines are above" >&2
	exit 1
fi
