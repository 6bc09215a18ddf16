#!/bin/sh
# Gives every fuzz target of this module so many inputs beyond the seeds that each test run tries: fuzz.sh COUNT.
# By count: with a time, Go sometimes takes the end of the time for a failure.
set -eu
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
grep -rho --include='*_test.go' --exclude-dir=node_modules --exclude-dir=e2e '^func Fuzz[A-Za-z0-9]*' . | grep -q . || { echo "no fuzz target"; exit 1; }
grep -ro --include='*_test.go' --exclude-dir=node_modules --exclude-dir=e2e '^func Fuzz[A-Za-z0-9]*' . | sort |
while IFS=: read -r file target; do
    target=${target#func }
    echo "fuzz $(dirname "$file") $target"
    ${GO:-go} test "$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "${1}x" >"$log" 2>&1 || { cat "$log"; exit 1; }
done
