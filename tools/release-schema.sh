#!/bin/sh
# Makes the GraphQL schema and the schemas of public events as they are those that later ones are compared with, and
# forgets which breaks were accepted until now.
set -eu
cp graph/generated/schema.graphql graph/released.graphql
mkdir -p contract/released
find contract/released -name '*.json' -exec rm {} +
find contract/schemas -name '*.json' -exec cp {} contract/released/ \;
for accepted in graph/accepted-breaks.txt contract/accepted-breaks.txt; do
	comments=$(grep '^#' "$accepted")
	printf '%s\n' "$comments" >"$accepted"
done
