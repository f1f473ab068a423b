#!/bin/sh
# Runs every fuzz target for the given time. The corpus that a target has grown is
# kept by Go under testdata/fuzz when it finds a failure; seeds stand in the tests.
set -eu
time=${1:-60s}
grep -rl '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do
	grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //' | while read -r target; do
		echo "fuzz $dir $target $time"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$dir" </dev/null
	done
done
