#!/bin/sh
# Runs every fuzz target for the given time. A failure that a target finds is
# kept under testdata/fuzz; seeds from the recorded frames stand in the tests. The
# minimizing of merely interesting inputs is cut short: it would take most of the time.
set -eu
time=${1:-60s}
grep -rl '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do
	grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //' | while read -r target; do
		echo "fuzz $dir $target $time"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 20x "$dir" </dev/null
	done
done
