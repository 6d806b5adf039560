# `make` lists the targets.

SHELL         := /bin/bash
.SHELLFLAGS   := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS     += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# No VCS stamping: git refuses to read a working tree that another user owns, and VERSION says it all.
BUILD_FLAGS := -buildvcs=false -trimpath

# Two packages at a time: several of them run a Postgres and a Temporal of their own.
TEST_FLAGS      ?= -timeout 10m -p 2
TEST_RACE_FLAGS ?= -timeout 30m -p 1 -race
PACKAGES        ?= ./...

# A Temporal that is installed is good enough; without one it is built, which takes a while but happens once.
TEMPORAL := $(if $(shell command -v temporal 2>/dev/null),,bin/temporal)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: bin/earmark $(TEMPORAL) ## build earmark and, where none is installed, Temporal into bin/

.PHONY: bin/earmark
bin/earmark:
	$(GO) build $(BUILD_FLAGS) -ldflags '-X main.version=$(VERSION)' -o $@ ./cmd/earmark

bin/temporal: tools/go.mod tools/go.sum
	@tools/progress.sh 'building Temporal once, about 3 minutes' \
	  $(GO) build -C tools $(BUILD_FLAGS) -ldflags '-s -w' -o ../$@ github.com/temporalio/cli/cmd/temporal

bin/golangci-lint: tools/lint/go.mod tools/lint/go.sum
	@tools/progress.sh 'building golangci-lint once, about a minute' \
	  $(GO) build -C tools/lint $(BUILD_FLAGS) -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

bin/workflowcheck: tools/lint/go.mod tools/lint/go.sum
	@tools/progress.sh 'building workflowcheck once' \
	  $(GO) build -C tools/lint $(BUILD_FLAGS) -o ../../$@ go.temporal.io/sdk/contrib/tools/workflowcheck

.PHONY: dev
dev: build ## run everything on this machine: Postgres, Temporal, API and worker (ARGS=… for its flags)
	@exec bin/earmark dev $(ARGS)

.PHONY: test
test: $(TEMPORAL) ## run all tests, on a real Postgres and a real Temporal
	@$(GO) test $(TEST_FLAGS) $(PACKAGES)

.PHONY: test-race
test-race: $(TEMPORAL) ## the same under the race detector; takes longer
	@$(GO) test $(TEST_RACE_FLAGS) $(PACKAGES)

DURATION ?= 10m
RATE     ?= 15

.PHONY: chaos
chaos: $(TEMPORAL) ## break everything while it is used, for DURATION=10m (SEED=… for the plan of an earlier run, RATE=15 requests/s)
	@$(GO) test -count 1 -v -timeout 0 -run '^TestChaos$$' ./test/chaos -args -duration $(DURATION) -seed $(or $(SEED),0) -rate $(RATE)

.PHONY: replay-fixtures
replay-fixtures: $(TEMPORAL) ## record the workflow histories that are missing from workflows/testdata/replay
	@$(GO) test -count=1 -tags record -run '^TestRecord$$' ./workflows

.PHONY: mutations
mutations: $(TEMPORAL) ## take each mechanism of docs/guarantees.md out and see its test fail; takes a quarter of an hour
	@$(GO) test -count 1 -timeout 3h -v -tags mutations ./test/mutations

.PHONY: test-clocks
test-clocks: $(TEMPORAL) ## test processes whose clocks are wrong; builds the standard library anew
	@$(GO) test -count 1 -timeout 20m -tags slow -run '^TestClocksOfProcessesApart$$' ./test/e2e

.PHONY: test-flags
test-flags: # for .ci/run, whose last words are to be those of go test
	@echo '$(TEST_FLAGS)'

.PHONY: test-browser
test-browser: $(TEMPORAL) ## look at the pages for people in a headless Chromium, which has to be installed
	@command -v "$${CHROMIUM:-chromium}" chromium-browser google-chrome >/dev/null || { \
	  echo 'there is no Chromium; install it (Debian: apt install chromium) or say where it is in CHROMIUM' >&2; exit 1; }
	@$(GO) test -count 1 -timeout 5m -tags browser -run '^TestBrowser' ./api ./test/statuspage ./test/temporalui

.PHONY: test-pgbouncer
test-pgbouncer: ## run the ledger through a real PgBouncer in transaction mode, which has to be installed
	@command -v pgbouncer >/dev/null || { echo 'there is no PgBouncer; install it (Debian: apt install pgbouncer)' >&2; exit 1; }
	@$(GO) test -count 1 -timeout 5m -tags pgbouncer -run Pooler -v ./internal/postgres

.PHONY: bench
bench: build ## measure Earmark beside floors and alternatives, a quarter of an hour; results in dist/ (ARGS=… for its flags)
	@mkdir -p dist
	@bin/earmark bench --json dist/bench.json --markdown dist/bench.md --plot dist/bench.svg $(ARGS)

.PHONY: bench-growth
bench-growth: build ## the same on top of up to 10 million settled rows; needs 25 GB of disk and half an hour
	@mkdir -p dist
	@bin/earmark bench --scenario growth --rows 10000,1000000,10000000 --json dist/bench-growth.json --markdown dist/bench-growth.md $(ARGS)

.PHONY: bench-micro
bench-micro: $(TEMPORAL) ## run the benchmarks of single functions
	@$(GO) test -timeout 30m -p 1 -run '^$$' -bench . -benchmem $(PACKAGES)

.PHONY: check
check: check-format check-vet check-lint check-workflows check-modules check-generated check-monitoring ## format, vet, lint, workflow determinism, modules, generated files, alerts and dashboard

.PHONY: check-format
check-format:
	@unformatted=$$(gofmt -l .); \
	if [[ -n $$unformatted ]]; then printf 'not formatted; run make fmt:\n%s\n' "$$unformatted"; exit 1; fi

.PHONY: check-vet
check-vet:
	$(GO) vet ./...
	$(GO) vet -tags 'browser mutations pgbouncer record slow' ./... # what make test does not build

.PHONY: check-lint
check-lint: bin/golangci-lint
	bin/golangci-lint run

.PHONY: check-workflows
check-workflows: bin/workflowcheck
	bin/workflowcheck ./workflows/...

.PHONY: check-modules
check-modules:
	$(GO) mod tidy -diff

.PHONY: check-generated
check-generated:
	tools/check-generated.sh

.PHONY: check-monitoring
check-monitoring: # with Prometheus' own parser and engine, which are no modules for the product to depend on
	@tools/progress.sh 'checking the alerts and the dashboard' \
	  $(GO) test -C tools/monitoring ./...

.PHONY: fmt
fmt: bin/golangci-lint ## format the code and sort its imports
	bin/golangci-lint fmt

.PHONY: docs-assets
docs-assets: ## take the viewer of /docs afresh from its npm package, as tools/docs pins it
	tools/docs/build.sh

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist
