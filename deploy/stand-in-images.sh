#!/bin/sh
# Makes stand-ins for the base images of the Dockerfile, under the same names, for
# machines that reach Debian's packages but no image registry:
#
#   debian:bookworm-slim     debootstrap's smallest Debian
#   golang:1.26-bookworm     the same with a C compiler, git and this machine's Go
#
# The Dockerfile is the same with them as with the real ones; what they lack are the
# registry's layers and its security updates. An image that is there already is left
# alone unless FORCE=1. MIRROR names another Debian mirror than debootstrap's own.
# Proxies (http_proxy, …) are taken from the environment, further certificate
# authorities from this machine's /usr/local/share/ca-certificates.
#
# Needs root, debootstrap, docker and Go; 2 GB in TMPDIR while it runs.
set -eu

docker=${DOCKER:-docker}
go_image=golang:1.26-bookworm
slim_image=debian:bookworm-slim

fail() { echo "stand-in-images: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "debootstrap needs root"
command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
$docker version >/dev/null 2>&1 || fail "no Docker daemon answers ($docker version)"

dir=$(mktemp -d)
# What is mounted below, should debootstrap break off, must not be removed through.
cleanup() {
	status=$?
	trap - EXIT HUP INT TERM
	for mounted in proc sys dev; do
		umount "$dir/root/$mounted" 2>/dev/null || true
	done
	rm -rf --one-file-system "$dir"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' HUP INT TERM

missing() {
	[ "${FORCE:-}" = 1 ] && return 0
	if $docker image inspect "$1" >/dev/null 2>&1; then
		echo "$1 is there: left as it is (FORCE=1 makes it anew)"
		return 1
	fi
}

# inside COMMAND: in the new system, which has this machine's settings of nothing.
inside() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$dir/root" "$@"; }

# debian PACKAGES: a Debian with these in $dir/root.
debian() {
	rm -rf --one-file-system "$dir/root"
	if ! debootstrap --variant=minbase --include="$1" bookworm "$dir/root" ${MIRROR:+"$MIRROR"} >"$dir/log" 2>&1; then
		tail -n 20 "$dir/log" >&2
		fail "debootstrap could not make it; its last lines are above"
	fi
	# Who sits behind a proxy that opens TLS has its authority on this machine.
	mkdir -p "$dir/root/usr/local/share/ca-certificates"
	for authority in /usr/local/share/ca-certificates/*.crt; do
		[ -e "$authority" ] && cp "$authority" "$dir/root/usr/local/share/ca-certificates/"
	done
	inside update-ca-certificates >"$dir/log" 2>&1 || fail "update-ca-certificates: $(tail -n 3 "$dir/log")"
	# As the real slim image: no package cache, now and later, and no manuals.
	cat >"$dir/root/etc/apt/apt.conf.d/docker-clean" <<-'CONF'
		DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
		APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
		Dir::Cache::pkgcache "";
		Dir::Cache::srcpkgcache "";
	CONF
	inside apt-get clean
	rm -rf "$dir"/root/var/lib/apt/lists/* "$dir"/root/usr/share/doc/* "$dir"/root/usr/share/man/* "$dir"/root/usr/share/locale/*
	: >"$dir/root/etc/resolv.conf"
	rm -f "$dir/root/etc/hostname"
}

# import IMAGE CHANGES...: $dir/root as an image.
import() {
	image=$1
	shift
	tar -C "$dir/root" --one-file-system -c . | $docker import "$@" - "$image" >/dev/null
	echo "$image: $($docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%.0f MB", $1 / 1e6}')"
}

if missing "$slim_image"; then
	echo "making $slim_image with debootstrap"
	debian ca-certificates
	import "$slim_image" --change 'CMD ["bash"]'
fi

if missing "$go_image"; then
	goroot=$(go env GOROOT) || fail "Go is missing: $go_image needs this machine's"
	case $(go env GOVERSION) in
	go1.26*) ;;
	*) fail "this machine's Go is $(go env GOVERSION), $go_image wants 1.26" ;;
	esac
	echo "making $go_image with debootstrap and $(go env GOVERSION) from this machine"
	debian ca-certificates,gcc,g++,libc6-dev,make,pkg-config,git
	mkdir -p "$dir/root/go/src" "$dir/root/go/bin"
	cp -a "$goroot/." "$dir/root/usr/local/go"
	import "$go_image" --change 'CMD ["bash"]' --change 'WORKDIR /go' --change 'ENV GOPATH=/go' --change 'ENV GOTOOLCHAIN=local' \
		--change 'ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
fi
