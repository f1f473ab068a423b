#!/bin/sh
# The story of three replicas, told by the real program: they form one cluster from
# empty directories, simulated LMCache workers talk to all of them, any of them answers,
# and the leader is killed. Nothing but the binary is needed, and nothing is left
# behind: ports are free ones, data and logs live in a temporary directory.
set -eu

kvctrld=${KVCTRLD:-bin/kvctrld}
dir=$(mktemp -d)
pid_1= pid_2= pid_3= fleet=

# Nothing of the surroundings may lead the demo to somebody's real controller.
for name in $(env | sed -n 's/^\(KVCTRL_[A-Z_]*\)=.*/\1/p; s/^\(LMCACHE_CONTROLLER_[A-Z_]*\)=.*/\1/p'); do
	unset "$name"
done

# end PID: asks a process of ours to stop, and waits.
end() { [ -z "$1" ] || { kill "$1" 2>/dev/null && wait "$1" 2>/dev/null; } || true; }
cleanup() {
	status=$?
	trap - EXIT HUP INT TERM
	end "$fleet"
	end "$pid_1"
	end "$pid_2"
	end "$pid_3"
	if [ "$status" != 0 ]; then
		for log in "$dir"/replica-*.log "$dir/fleet.log"; do
			[ -s "$log" ] || continue
			echo
			echo "The demo stopped with an error. The last lines of $(basename "$log"):"
			tail -n 12 "$log"
		done
	fi
	rm -rf "$dir"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' HUP INT TERM

if [ -t 1 ]; then bold=$(printf '\033[1m'); plain=$(printf '\033[0m'); else bold=; plain=; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
fail() { printf '\nThis should not be: %s\n' "$*"; exit 1; }
now_ms() {
	now=$(date +%s%N)
	case $now in
	*N) echo "$(date +%s)000" ;; # a date that knows whole seconds only
	*) echo "${now%??????}" ;;
	esac
}
seconds() { awk "BEGIN { printf \"%.1f s\", ($(now_ms) - $1) / 1000 }"; }

# Replica N listens on five ports from here on.
port() { echo $((base + 5 * ($1 - 1))); }
url() { echo "http://127.0.0.1:$(port "$1")"; }
pid() { eval "echo \$pid_$1"; }

# on N COMMAND...: asks replica N, and only that one.
on() {
	replica=$1
	shift
	"$kvctrld" "$@" --addr "$(url "$replica")"
}
# run N COMMAND...: the same, shown.
run() {
	replica=$1
	shift
	printf '$ kvctrld'
	for word in "$@"; do printf ' %s' "$word"; done
	printf '    # asks replica %s\n' "$replica"
	on "$replica" "$@"
}

start() {
	p=$(port "$1")
	"$kvctrld" serve --node-id "replica-$1" --data-dir "$dir/data-$1" --host 127.0.0.1 --port "$p" \
		--monitor-ports "{\"pull\":$((p + 1)),\"reply\":$((p + 2)),\"heartbeat\":$((p + 3))}" --peer-addr "127.0.0.1:$((p + 4))" \
		--join "$(url 1),$(url 2),$(url 3)" --bootstrap-expect 3 >>"$dir/replica-$1.log" 2>&1 &
	eval "pid_$1=$!"
}

# Waits until a command succeeds, 15 seconds at most.
until_ok() {
	tries=0
	until "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ "$tries" -lt 150 ] || fail "gave up waiting for: $*"
		sleep 0.1
	done
}
alive() { kill -0 "$(pid "$1")" 2>/dev/null; }
has_leader() { on "$1" status; }
complete() { [ "$(on "$1" status | grep -c ' http://.* ok$')" = 3 ]; }
holds() { on "$1" lookup --tokens 0..1023 | grep -q "^$2 "; }
leader() { on "$1" status --json | sed -n 's/.*"leader": *{[^}]*"url": *"\([^"]*\)".*/\1/p'; }
one_leader() {
	first=$(leader 1 2>/dev/null) && [ -n "$first" ] && [ "$(leader 2 2>/dev/null)" = "$first" ] && [ "$(leader 3 2>/dev/null)" = "$first" ]
}
one_of_two() { first=$(leader "$follower" 2>/dev/null) && [ -n "$first" ] && [ "$(leader "$other" 2>/dev/null)" = "$first" ]; }
# number URL: which of the three it is.
number() { for n in 1 2 3; do if [ "$1" = "$(url $n)" ]; then echo "$n"; fi; done; }

form() {
	for n in 1 2 3; do start "$n"; done
	tries=0
	while [ "$tries" -lt 150 ]; do
		for n in 1 2 3; do alive "$n" || return 1; done
		if one_leader; then return 0; fi
		tries=$((tries + 1))
		sleep 0.1
	done
	fail "three replicas did not become one cluster within 15 seconds"
}

say "1. Three replicas start in empty directories. Each is told the same: the addresses of all, and to form a cluster of three."
began=
for try in 1 2 3 4 5; do
	# Below the ports that the system gives to others by itself; the next try is elsewhere.
	base=$((20000 + ($$ * 16 + try * 1777) % 10000))
	began=$(now_ms)
	if form; then break; fi
	for n in 1 2 3; do
		end "$(pid "$n")"
		eval "pid_$n="
	done
	grep -qi 'address already in use' "$dir"/replica-*.log || fail "a replica ended"
	[ "$try" != 5 ] || fail "no free ports found"
	rm -rf "$dir"/data-* "$dir"/replica-*.log
done
echo "\$ kvctrld serve --join $(url 1),$(url 2),$(url 3) --bootstrap-expect 3    # three times, with ports and a directory of its own each"
echo "One cluster after $(seconds "$began")."
until_ok complete 1
run 1 status

say "2. Three simulated LMCache engines, each at another replica. sim-0 has computed the prompt of tokens 0 to 1023."
pulls="127.0.0.1:$(($(port 1) + 1)),127.0.0.1:$(($(port 2) + 1)),127.0.0.1:$(($(port 3) + 1))"
replies="127.0.0.1:$(($(port 1) + 2)),127.0.0.1:$(($(port 2) + 2)),127.0.0.1:$(($(port 3) + 2))"
"$kvctrld" simulate --instances 3 --rate 20 --heartbeat 200ms --prompt 0..1023 --pull "$pulls" --reply "$replies" >"$dir/fleet.log" 2>&1 &
fleet=$!
for n in 1 2 3; do until_ok holds "$n" sim-0; done
run 3 workers

say "3. A router asks who holds the beginning of a prompt. Every replica knows, from its own memory."
for n in 1 2 3; do run "$n" lookup --tokens 0..1099; done

until_ok one_leader # on a busy machine it may have changed
led=$(number "$(leader 1)")
follower=$((led % 3 + 1))
other=$((follower % 3 + 1))
say "4. Commands through a follower. Replica $led leads; replica $follower passes them on and answers as if it had done them itself."
run "$follower" pin sim-0 --tokens 0..1023
run "$follower" move sim-0 sim-1 --tokens 0..1023 --copy
until_ok holds "$other" sim-1
run "$other" lookup --tokens 0..1023
run "$follower" health sim-1

say "5. kill -9 of the leader, replica $led."
kill -9 "$(pid "$led")"
began=$(now_ms)
wait "$(pid "$led")" 2>/dev/null || true
eval "pid_$led="
echo "The others answer lookups at once, leader or not:"
run "$other" lookup --tokens 0..1023
run "$follower" lookup --tokens 0..1023
echo "A command waits until the two have elected a leader:"
run "$follower" pin sim-1 --tokens 0..1023 || fail "a command through a survivor"
echo "Acknowledged $(seconds "$began") after the kill."
run "$other" status

say "6. Everything goes on with two."
if ! run "$other" move sim-1 sim-2 --tokens 0..1023 --copy; then
	echo "The leader changed once more, as it may on a busy machine. What that interrupted is sent again by people, never by itself:"
	until_ok one_of_two
	run "$other" move sim-1 sim-2 --tokens 0..1023 --copy
fi
until_ok holds "$follower" sim-2
run "$follower" lookup --tokens 0..1023
run "$follower" events

say "7. Replica $led comes back on its old directory and catches up."
start "$led"
until_ok complete "$led"
until_ok holds "$led" sim-0
run "$led" status
end "$fleet"
fleet=
echo "The fleet has stopped, so nothing changes any more. Digests of the whole state, equal at an equal index:"
same() {
	digest=$(on 1 digest) && [ "$digest" = "$(on 2 digest)" ] && [ "$digest" = "$(on 3 digest)" ]
}
until_ok same
for n in 1 2 3; do run "$n" digest; done

say "8. What the fleet saw:"
cat "$dir/fleet.log"
for n in 1 2 3; do
	alive "$n" || fail "replica $n has ended"
done

say "Real engines know one address only: deploy/haproxy.cfg is the front that they dial, docker-compose.yml has all of it. README.md tells how to put it in the place of lmcache_controller."
