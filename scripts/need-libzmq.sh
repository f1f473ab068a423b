#!/bin/sh
# Makes sure that libzmq's headers are there, since github.com/pebbe/zmq4 builds
# against them. On Debian and Ubuntu they are installed; elsewhere this says what
# to install.
set -eu

have() { pkg-config --exists libzmq 2>/dev/null; }

have && exit 0

if command -v apt-get >/dev/null 2>&1; then
	sudo=
	if [ "$(id -u)" != 0 ]; then
		if ! command -v sudo >/dev/null 2>&1; then
			echo "libzmq's headers are missing. As root, run: apt-get install libzmq3-dev pkg-config" >&2
			exit 1
		fi
		sudo=sudo
	fi
	echo "libzmq's headers are missing: installing libzmq3-dev and pkg-config with apt-get"
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	install() { DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y --no-install-recommends libzmq3-dev pkg-config >"$log" 2>&1; }
	# A machine that was just set up has no package lists yet.
	if ! install && ! { $sudo apt-get update >"$log" 2>&1 && install; }; then
		tail -n 5 "$log" >&2
		echo "apt-get could not install libzmq3-dev; its last lines are above" >&2
		exit 1
	fi
fi

if ! have; then
	cat >&2 <<'TEXT'
libzmq's headers are missing, and this is no Debian or Ubuntu where they could be installed for you. Install them and try again:
  Fedora, RHEL   dnf install zeromq-devel pkgconf
  Arch           pacman -S zeromq pkgconf
  Alpine         apk add zeromq-dev pkgconf
  macOS          brew install zeromq pkg-config
TEXT
	exit 1
fi
