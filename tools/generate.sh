#!/bin/sh
# Generates what is made from graph/schema, the executor and the schema as one document, and what is made from the public
# types: their schemas and the AsyncAPI document. $1 is the command for the first.
set -eu
$1
printed=$(mktemp)
trap 'rm -f "$printed"' EXIT
go run ./graph/printschema graph/schema/*.graphqls >"$printed"
cat "$printed" >graph/generated/schema.graphql # only a whole one takes the old one's place
go run ./internal/contract/generate
