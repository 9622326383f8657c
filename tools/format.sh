#!/bin/sh
# Fails when a Go file that git knows is not formatted. $1 is the formatter.
set -eu
wrong=$(git ls-files -z '*.go' | grep -zv '^graph/generated/' | xargs -0 $1 -l)
if [ -n "$wrong" ]; then
	echo "format: these are not formatted; run make format:" >&2
	echo "$wrong" >&2
	exit 1
fi
