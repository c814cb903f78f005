#!/usr/bin/env bash
# race.sh COMMAND… runs tests under the race detector: once, but up to three
# times where the detector itself broke down. Go 1.26 keeps one record of the
# detector for the timers of a bubble of testing/synctest, and processors that use
# it at the same time spoil it (golang.org/issue/78156): it then ends the test
# with a failed check of its own, or with a fault at an address in its C++ code.
# No test has failed there. "go test" remembers what has passed, so only what the
# fault hit is run again. Whatever else fails, fails at once.
set -uo pipefail

broke='ThreadSanitizer: CHECK failed|^SIGSEGV: segmentation violation'
failed='--- FAIL|DATA RACE|panic:|fatal error:|build failed|setup failed'

said=$(mktemp)
trap 'rm -f "$said"' EXIT
for try in 1 2 3; do
	"$@" 2>&1 | tee "$said"
	status=$?
	if [ $status -eq 0 ] || grep -qE -e "$failed" "$said" || ! grep -qE -e "$broke" "$said"; then
		exit $status
	fi
	echo "race.sh: the race detector broke down, time $try of 3" >&2
done
exit $status
