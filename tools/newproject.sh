#!/bin/sh
# Makes an own project of a copy of the checkout, as docs/own-project.md says: gives the module another path, adds the
# tutorial's domain, deletes the example, builds and tests. Fails where a reader would.
set -eu
old=$(go list -m)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# What was deleted and not yet told to git is not there to be copied.
git ls-files -z --cached --others --exclude-standard | tar -c --null --ignore-failed-read -T - 2>/dev/null | tar -x -C "$copy"
cd "$copy"
git init --quiet
git add .
go -C tools run ./newproject example.com/shop
# An address in a document is no module path.
if git grep -nF "$old" -- ':!*.md'; then
	echo "newproject: these still name the old module" >&2
	exit 1
fi
go -C tools run ./tutorial docs/tutorial.md docs/own-project.md
