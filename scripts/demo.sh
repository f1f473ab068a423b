#!/bin/sh
# The story of one replica, told by the real program: a simulated fleet of LMCache
# workers, a lookup, every command, a kill -9 and a restart with everything still
# there. Nothing is left behind: data and logs live in a temporary directory.
set -eu

kvctrld=${KVCTRLD:-bin/kvctrld}
dir=$(mktemp -d)
replica=
fleet=

# Nothing of the surroundings may lead the demo to somebody's real controller.
for name in $(env | sed -n 's/^\(KVCTRL_[A-Z_]*\)=.*/\1/p; s/^\(LMCACHE_CONTROLLER_[A-Z_]*\)=.*/\1/p'); do
	unset "$name"
done

cleanup() {
	status=$?
	trap - EXIT INT TERM
	[ -n "$fleet" ] && kill "$fleet" 2>/dev/null && wait "$fleet" 2>/dev/null
	[ -n "$replica" ] && kill "$replica" 2>/dev/null && wait "$replica" 2>/dev/null
	if [ "$status" != 0 ] && [ -s "$dir/replica.log" ]; then
		echo
		echo "The demo stopped with an error. The last lines of the replica's log:"
		tail -n 15 "$dir/replica.log" 2>/dev/null || true
	fi
	rm -rf "$dir"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if [ -t 1 ]; then bold=$(printf '\033[1m'); plain=$(printf '\033[0m'); else bold=; plain=; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
run() {
	printf '$ kvctrld'
	for word in "$@"; do printf ' %s' "$word"; done
	printf '\n'
	"$kvctrld" "$@"
}

# Waits until a command succeeds, 10 seconds at most.
until_ok() {
	tries=0
	until kill -0 "$replica" 2>/dev/null || exit 1; "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ "$tries" -lt 100 ] || { echo "gave up waiting for: $*"; exit 1; }
		sleep 0.1
	done
}
holds() { "$kvctrld" lookup --tokens 0..1023 | grep -q "^$1 "; }
lost() { ! holds "$1"; }

start_replica() {
	"$kvctrld" serve --data-dir "$dir/data" >>"$dir/replica.log" 2>&1 &
	replica=$!
	until_ok "$kvctrld" status
}

if "$kvctrld" events >/dev/null 2>&1; then
	echo "A controller answers on port 9000 already. The demo would act on it: stop it first."
	exit 1
fi

say "1. A replica starts on its embedded default: a cluster of one, REST on port 9000, LMCache's own worker ports."
echo '$ kvctrld serve'
start_replica
run status

say "2. Three simulated LMCache engines register and report their chunks. sim-0 has computed the prompt of tokens 0 to 1023."
echo '$ kvctrld simulate --instances 3 --prompt 0..1023'
"$kvctrld" simulate --instances 3 --rate 20 --heartbeat 200ms --prompt 0..1023 >"$dir/fleet.log" 2>&1 &
fleet=$!
until_ok holds sim-0
run workers

say "3. A router asks who holds the beginning of a prompt. Chunks are 256 tokens; of 1100 tokens four chunks are known."
run lookup --tokens 0..1099

say "4. Every command. Each one is an entry in the log before a worker hears of it."
run pin sim-0 --tokens 0..1023
run move sim-0 sim-1 --tokens 0..1023 --copy
until_ok holds sim-1
echo "  now both hold it:"
run lookup --tokens 0..1023
run compress sim-1 --tokens 0..1023
run decompress sim-1 --tokens 0..1023
run move sim-1 sim-2 --tokens 0..1023
until_ok holds sim-2
until_ok lost sim-1
echo "  moved, not copied: sim-1 gave it up"
run lookup --tokens 0..1023
run clear sim-2
until_ok lost sim-2
run health sim-0
echo "  an error keeps the worker's own words:"
run move sim-0 sim-1/LocalDiskBackend --tokens 0..1023 || true

say "5. kill -9 of the replica. The fleet goes on; nobody answers."
kill -9 "$replica"
wait "$replica" 2>/dev/null || true
run lookup --tokens 0..1023 --timeout 2s || true

say "6. It starts again on the same directory. The workers are not asked for anything: what they said is in the log."
start_replica
until_ok "$kvctrld" lookup --tokens 0..1023
run lookup --tokens 0..1023
run events
run status

kill "$fleet"
wait "$fleet" 2>/dev/null || true
fleet=
if grep -q ', 0 full syncs' "$dir/fleet.log"; then
	say "7. What the fleet saw: no full sync, although the controller died."
else
	say "7. What the fleet saw: events were on the wire when the controller died; who had sent them was asked for its keys once."
fi
cat "$dir/fleet.log"

say "That is one replica. README.md tells how to put it in the place of lmcache_controller."
