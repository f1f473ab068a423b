#!/bin/sh
# docker-compose.yml for real: builds the images, starts everything, kills the container
# of the leader, looks at the others, starts it again, and takes everything away but the
# images, which stay with a Docker that was there before.
#
#   deploy/try-containers.sh            with the Docker that answers here
#   KEEP=1 deploy/try-containers.sh     leaves it running
#
# Where no daemon answers and this is root, one is started for as long as this runs; it
# has a directory of its own and leaves the machine's firewall alone. Base images that
# cannot be pulled are made by stand-in-images.sh. Docker Engine and docker-compose are
# Debian's docker.io and docker-compose, or any newer ones.
set -eu
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
fail() { echo "try-containers: $*" >&2; exit 1; }
shown() { echo "\$ $*"; "$@"; }

dir=$(mktemp -d)
dockerd=
up=
cleanup() {
	status=$?
	trap - EXIT HUP INT TERM
	if [ "$status" != 0 ] && [ -n "$up" ]; then
		compose logs --tail 20 || true
	fi
	if [ -n "$up" ] && [ "${KEEP:-}" != 1 ]; then
		compose down -v --timeout 30 >/dev/null 2>&1 || true
	fi
	if [ -n "$dockerd" ] && [ "${KEEP:-}" = 1 ]; then
		echo "Docker goes on as process $dockerd: DOCKER_HOST=$DOCKER_HOST"
		exit "$status"
	fi
	if [ -n "$dockerd" ]; then
		kill "$dockerd" && wait "$dockerd" || true
		umount "$dir/exec/netns/default" 2>/dev/null || true # it leaves that
	fi
	rm -rf --one-file-system "$dir"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' HUP INT TERM

until_ok() {
	limit=$1
	shift
	began=$(date +%s)
	until "$@" >/dev/null 2>&1; do
		[ $(($(date +%s) - began)) -lt "$limit" ] || fail "gave up after $limit s: $*"
		sleep 0.2
	done
}

if ! docker version >/dev/null 2>&1; then
	[ "$(id -u)" = 0 ] || fail "no Docker daemon answers, and only root could start one"
	command -v dockerd >/dev/null || fail "no Docker daemon answers and there is none to start: apt-get install docker.io docker-compose"
	say "starting a Docker daemon"
	export DOCKER_HOST="unix://$dir/docker.sock"
	# Without rules in the firewall containers reach each other and this machine them,
	# but they do not reach out: builds use this machine's network then.
	dockerd --iptables=false --ip-forward=false --bridge=none --host "$DOCKER_HOST" --data-root "${DOCKER_DATA:-$dir/data}" --exec-root "$dir/exec" --pidfile "$dir/dockerd.pid" >"$dir/dockerd.log" 2>&1 &
	dockerd=$!
	until_ok 30 sh -c "kill -0 $dockerd && docker version" || { tail "$dir/dockerd.log"; exit 1; }
	export BUILD_NETWORK=host
fi

project=kvctrl-try
if docker compose version >/dev/null 2>&1; then
	compose() { docker compose -p "$project" "$@"; }
else
	command -v docker-compose >/dev/null || fail "docker compose is missing: apt-get install docker-compose"
	compose() { docker-compose -p "$project" "$@"; }
	# Its builder is Docker's classic one, which needs no plugin.
	export COMPOSE_DOCKER_CLI_BUILD=0 DOCKER_BUILDKIT=0
fi

say "base images"
for image in golang:1.26-bookworm debian:bookworm-slim; do
	docker image inspect "$image" >/dev/null 2>&1 || timeout 600 docker pull "$image" >/dev/null 2>&1 || { echo "$image cannot be pulled"; deploy/stand-in-images.sh; break; }
done

say "build"
COMMIT=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
export COMMIT
compose build >"$dir/build.log" 2>&1 || { tail -n 30 "$dir/build.log"; fail "the build failed; its last lines are above"; }
docker image ls --format '{{.Repository}}:{{.Tag}}  {{.Size}}' | grep -E '^kvctrl'

kvctrld() { compose exec -T "$1" kvctrld $2; }
on() {
	echo "\$ docker compose exec $1 kvctrld $2"
	kvctrld "$1" "$2"
}
is_healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$(compose ps -q "$1")")" = healthy ]; }
holds() { kvctrld "$1" "lookup --tokens $3" | grep -q "^$2 "; }
leader() { kvctrld front "status --json" | sed -n 's/.*"leader": *{[^}]*"url": *"http:\/\/\([^:"]*\):.*/\1/p'; }

say "up"
up=1
compose up -d >"$dir/up.log" 2>&1 || { cat "$dir/up.log"; fail "up failed"; }
for service in kv-1 kv-2 kv-3 front; do
	until_ok 120 is_healthy "$service"
done
until_ok 30 holds kv-1 rack-1-0 0..1023
until_ok 30 holds kv-2 rack-2-0 5000..6023
until_ok 30 holds kv-3 rack-3-0 9000..10023
compose ps
on kv-1 status
on front "lookup --tokens 0..1023"
on front "pin rack-1-0 --tokens 0..1023"

was=$(leader)
[ -n "$was" ] || fail "nobody leads"
others=$(echo "kv-1 kv-2 kv-3" | tr ' ' '\n' | grep -v "^$was\$")
say "$was leads: kill its container"
echo "\$ docker compose kill $was"
compose kill "$was" >/dev/null 2>&1
for other in $others; do
	on "$other" "lookup --tokens 0..1023"
done
on front "pin rack-2-0 --tokens 5000..6023"
on front "status"
now=$(leader)
[ -n "$now" ] && [ "$now" != "$was" ] || fail "after the death of $was the leader is \"$now\""

say "start it again"
echo "\$ docker compose start $was"
compose start "$was" >/dev/null 2>&1
until_ok 60 is_healthy "$was"
until_ok 30 holds "$was" rack-2-0 5000..6023
on "$was" status
on "$was" workers

say "stop the front: every replica still answers by itself"
compose stop front >/dev/null 2>&1
for replica in kv-1 kv-2 kv-3; do
	on "$replica" "lookup --tokens 9000..10023"
	holds "$replica" rack-3-0 9000..10023 || fail "$replica does not know what rack-3-0 holds"
done
echo "\$ docker compose start front"
compose start front >/dev/null 2>&1
until_ok 60 is_healthy front
on front "health rack-3-0"

if [ "${KEEP:-}" = 1 ]; then
	say "it goes on running, as project $project"
else
	say "down"
	compose down -v --timeout 30 >"$dir/down.log" 2>&1 || { cat "$dir/down.log"; fail "down failed"; }
	up=
	echo "everything is gone again"
fi
