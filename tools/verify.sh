#!/bin/sh
# Generates into the working tree and fails when that changes anything: what is committed must be what the schema and the
# public types give. $1 is the command that generates.
set -eu
files() { find graph/generated contract/asyncapi.yaml contract/schemas -type f | sort; }
hashes() { for file in $(files); do echo "$file $(git hash-object "$file")"; done; }
before=$(hashes)
$1
after=$(hashes)
if [ "$before" != "$after" ]; then
	echo "verify: graph/generated or contract was not current; it is now: look at the change and commit it" >&2
	git --no-pager diff --stat -- graph/generated contract >&2
	exit 1
fi
