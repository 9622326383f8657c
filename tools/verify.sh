#!/bin/sh
# Generates into the working tree and fails when that changes anything: what is committed must be what the schema gives.
# $1 is the command that generates.
set -eu
before=$(git hash-object graph/generated/*)
$1
after=$(git hash-object graph/generated/*)
if [ "$before" != "$after" ]; then
	echo "verify: graph/generated was not current; it is now: look at the change and commit it" >&2
	git --no-pager diff --stat -- graph/generated >&2
	exit 1
fi
