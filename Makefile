# `make` alone lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/sh

# The tools are pinned in a module of their own, so that the product's go.mod names only what the product imports.
TOOL := go tool -modfile=tools/go.mod
GQLGEN := go -C tools run ./gqlgen

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: build postgres ## Run in development mode on :8080, with a private Postgres unless DATABASE_URL is set
	@exec ./bin/api dev

.PHONY: build
build: ## Build bin/api
	go build -o bin/api ./cmd/api

.PHONY: postgres
postgres: build ## Install Postgres through apt, dnf, apk or Homebrew if none is found and this user may
	@if [ -z "$$DATABASE_URL" ]; then ./bin/api postgres install; fi

.PHONY: test
test: ## Run all tests with the race detector against a Postgres of their own; ARGS="./internal/outbox -run X" for some
	go run ./internal/pgtest/gotest $(ARGS)

.PHONY: chaos
chaos: ## Kill, stop and replace servers under load for two minutes, or HEADRACE_CHAOS, and check what is left
	HEADRACE_CHAOS=$${HEADRACE_CHAOS:-2m} go run ./internal/pgtest/gotest ./cmd/api -run TestChaos -v -count=1 -timeout 15m

.PHONY: clients
clients: ## Try the server with real clients and a browser; needs Node 20; ARGS="apollo.test.mjs" for some
	go run ./internal/pgtest/nodetest $(ARGS)

.PHONY: release-schema
release-schema: ## Make the schemas of GraphQL and of public events as they are those that later ones are compared with
	sh tools/release-schema.sh

.PHONY: bench
bench: ## Measure, side by side with pgbench; ARGS="-h" lists the options
	go run ./cmd/bench $(ARGS)

.PHONY: generate
generate: ## Generate the GraphQL code, the printed schema, and the documents of the public contract
	sh tools/generate.sh '$(GQLGEN)'

.PHONY: verify
verify: ## Fail when generated code, go.mod or go vet is not as it should be
	sh tools/verify.sh '$(MAKE) --no-print-directory generate'
	go mod tidy -diff
	go vet ./...
	GOOS=darwin go vet ./internal/pgdev ./cmd/api

.PHONY: lint
lint: ## Lint, check the formatting, and look for known vulnerabilities
	$(TOOL) golangci-lint run ./...
	sh tools/format.sh '$(TOOL) gofumpt'
	sh tools/vulnerabilities.sh '$(TOOL) govulncheck'

.PHONY: format
format: ## Format all Go code
	$(TOOL) gofumpt -w $$(git ls-files '*.go' | grep -v ^graph/generated/)

.PHONY: migrate
migrate: build ## Migrate the database in use; ARGS="down", "status" or "create NAME" for the rest
	HEADRACE_ENV=$${HEADRACE_ENV:-development} ./bin/api migrate $(or $(ARGS),up)

.PHONY: reset
reset: build ## Drop the private development database of this checkout
	./bin/api postgres reset

.PHONY: tutorial
tutorial: ## Follow the tutorial in a copy of the checkout, and fail where a reader would
	go -C tools test ./steps
	go -C tools run ./tutorial docs/tutorial.md

.PHONY: newproject
newproject: ## Make an own project of a copy, as docs/own-project.md says, and build and test it
	go -C tools test ./steps
	sh tools/newproject.sh
