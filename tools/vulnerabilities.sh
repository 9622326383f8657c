#!/bin/sh
# Fails when the code calls a function with a known vulnerability. Without the database of vulnerabilities nothing is
# known, which is said and is no failure: a build must not break because another's server is away. $1 is govulncheck.
set -u
out=$($1 ./... 2>&1)
code=$?
printf '%s\n' "$out"
if [ $code -eq 0 ]; then
	exit 0
fi
# govulncheck ends with 3 when it found something, and with 1 when it could not look.
case "$out" in
*"fetching vulnerabilities"* | *"vuln.go.dev"*)
	if [ $code -ne 3 ]; then
		echo "*** NOT CHECKED for known vulnerabilities: their database cannot be reached from here ***" >&2
		exit 0
	fi
	;;
esac
exit $code
