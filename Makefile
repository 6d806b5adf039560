# `make` lists the targets.

SHELL         := /bin/bash
.SHELLFLAGS   := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS     += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# No VCS stamping: git refuses to read a working tree that another user owns, and VERSION and COMMIT say it all.
BUILD_FLAGS := -buildvcs=false -trimpath
COMMIT      ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null)

# Two packages at a time: several of them run a Postgres and a Temporal of their own.
TEST_FLAGS      ?= -timeout 10m -p 2
TEST_RACE_FLAGS ?= -timeout 30m -p 1 -race
# Modules of their own, so that whoever imports the client does not see what they need.
MODULES := bench test
# The packages that the race detector pays for; the end-to-end tests run processes, which it does not see.
RACE_PACKAGES ?= . ./activities/... ./api/... ./client/... ./internal/... ./worker/... ./workflows/...

# A Temporal that is installed is good enough; without one it is built, which takes a while but happens once.
TEMPORAL := $(if $(shell command -v temporal 2>/dev/null),,bin/temporal)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: bin/earmark $(TEMPORAL) ## build earmark and, where none is installed, Temporal into bin/

.PHONY: bin/earmark
bin/earmark:
	$(GO) build $(BUILD_FLAGS) -ldflags '-X main.version=$(VERSION) -X main.commit=$(COMMIT)' -o $@ ./cmd/earmark

.PHONY: bin/earmark-bench
bin/earmark-bench:
	$(GO) build -C bench $(BUILD_FLAGS) -ldflags '-X main.version=$(VERSION)' -o ../$@ .

bin/temporal: tools/go.mod tools/go.sum
	@tools/progress.sh 'building Temporal once, about 3 minutes' \
	  $(GO) build -C tools $(BUILD_FLAGS) -ldflags '-s -w' -o ../$@ github.com/temporalio/cli/cmd/temporal

bin/golangci-lint: tools/lint/go.mod tools/lint/go.sum
	@tools/progress.sh 'building golangci-lint once, about a minute' \
	  $(GO) build -C tools/lint $(BUILD_FLAGS) -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

bin/workflowcheck: tools/lint/go.mod tools/lint/go.sum
	@tools/progress.sh 'building workflowcheck once' \
	  $(GO) build -C tools/lint $(BUILD_FLAGS) -o ../../$@ go.temporal.io/sdk/contrib/tools/workflowcheck

bin/govulncheck: tools/vuln/go.mod tools/vuln/go.sum
	@tools/progress.sh 'building govulncheck once' \
	  $(GO) build -C tools/vuln $(BUILD_FLAGS) -o ../../$@ golang.org/x/vuln/cmd/govulncheck

.PHONY: dev
dev: build ## run everything on this machine: Postgres, Temporal, API and worker (ARGS=… for its flags)
	@exec bin/earmark dev $(ARGS)

.PHONY: test
test: $(TEMPORAL) ## run all tests, on a real Postgres and a real Temporal
	@$(GO) test $(TEST_FLAGS) ./...
	@for module in $(MODULES); do $(GO) test -C $$module $(TEST_FLAGS) -p 1 ./... || exit 1; done # one whole system at a time

.PHONY: race-short
race-short: # what CI runs under the race detector
	@echo '. ./activities ./api ./client/... ./internal/handoff ./usage ./pricing'

.PHONY: test-race
test-race: $(TEMPORAL) ## run the tests inside one process under the race detector
	@$(GO) test $(TEST_RACE_FLAGS) $(RACE_PACKAGES)

# Executions, or a time: when a time is up, go test may report "context deadline exceeded" as a failure.
FUZZTIME ?= 2000x

.PHONY: fuzz
fuzz: ## run each fuzz test on FUZZTIME=2000x generated inputs, or for a time such as 10m
	@grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do \
	  for name in $$(grep -oE '^func Fuzz[A-Za-z0-9]+' "$$file" | cut -d ' ' -f 2); do \
	    $(GO) test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" || exit 1; \
	  done; \
	done

DURATION ?= 10m
RATE     ?= 15

.PHONY: chaos
chaos: $(TEMPORAL) ## break everything while it is used, for DURATION=10m (SEED=… for the plan of an earlier run, RATE=15 requests/s)
	@$(GO) test -C test -count 1 -v -timeout 0 -run '^TestChaos$$' ./chaos -args -duration $(DURATION) -seed $(or $(SEED),0) -rate $(RATE)

WAVE      ?= 20000
WAVE_RATE ?= 50

.PHONY: chaos-wave
chaos-wave: $(TEMPORAL) ## kill everything, start it again when WAVE=20000 holds are overdue, and see each end (WAVE_RATE=50 are made a second at least)
	@$(GO) test -C test -count 1 -v -timeout 0 -run '^TestExpiryWave$$' ./chaos -args -wave $(WAVE) -wave-rate $(WAVE_RATE)

.PHONY: replay-fixtures
replay-fixtures: $(TEMPORAL) ## record the workflow histories that are missing from workflows/testdata/replay
	@$(GO) test -count=1 -tags record -run '^TestRecord$$' ./workflows

.PHONY: mutations
mutations: $(TEMPORAL) ## take each mechanism of docs/guarantees.md out and see its test fail; takes a quarter of an hour
	@$(GO) test -C test -count 1 -timeout 3h -v -tags mutations ./mutations

.PHONY: test-clocks
test-clocks: $(TEMPORAL) ## test processes whose clocks are wrong; builds the standard library anew
	@$(GO) test -C test -count 1 -timeout 20m -tags slow -run '^TestClocksOfProcessesApart$$' ./e2e

bin/temporal-next/temporal: tools/temporal-next/go.mod tools/temporal-next/go.sum tools/temporal-next/main.go
	@tools/progress.sh 'building a newer Temporal once, about 5 minutes' \
	  $(GO) build -C tools/temporal-next $(BUILD_FLAGS) -ldflags '-s -w' -o ../../$@ .

.PHONY: test-paused
test-paused: bin/temporal-next/temporal ## test workflows that somebody paused, or whose tasks fail, on a Temporal that reports both; builds one
	@PATH="$(CURDIR)/bin/temporal-next:$$PATH" $(GO) test -C test -count 1 -timeout 10m -tags paused -run '^(TestPausedWorkflow|TestFailingTaskIsReported)$$' -v ./e2e

bin/temporal-server: tools/temporal-server/go.mod tools/temporal-server/go.sum
	@tools/progress.sh "building Temporal's server once, about 5 minutes" \
	  $(GO) build -C tools/temporal-server $(BUILD_FLAGS) -ldflags '-s -w' -o ../../$@ go.temporal.io/server/cmd/server

bin/temporal-sql-tool: tools/temporal-server/go.mod tools/temporal-server/go.sum
	@tools/progress.sh "building Temporal's schema tool once" \
	  $(GO) build -C tools/temporal-server $(BUILD_FLAGS) -ldflags '-s -w' -o ../../$@ go.temporal.io/server/cmd/tools/sql

# Requests a second that two cores bear beside the databases and Temporal.
DRILL_RATE ?= $(if $(findstring cluster,$(MAKECMDGOALS)),8,10)
DRILL_ARGS = -seed $(or $(SEED),0) -drill-rate $(DRILL_RATE)

.PHONY: test-cluster
test-cluster: $(TEMPORAL) bin/temporal-server bin/temporal-sql-tool ## kill, freeze and add nodes of a Temporal cluster, servers and workers under load; Linux (SEED=…)
	@PATH="$(CURDIR)/bin:$$PATH" $(GO) test -C test -count 1 -timeout 30m -tags drills -run '^TestTemporalCluster$$' -v ./chaos -args $(DRILL_ARGS)

.PHONY: test-failover
test-failover: $(TEMPORAL) ## kill the primary of a replicated Postgres under load, promote its standby, and let the former primary come back; Linux
	@PATH="$(CURDIR)/bin:$$PATH" $(GO) test -C test -count 1 -timeout 20m -tags drills -run '^TestFailover' -v ./chaos -args $(DRILL_ARGS)

.PHONY: test-upgrade
test-upgrade: $(TEMPORAL) ## upgrade under load from an earlier commit (FROM=…), process by process, and back, with open reservations of both; Linux
	@PATH="$(CURDIR)/bin:$$PATH" $(GO) test -C test -count 1 -timeout 20m -tags drills -run '^TestUpgradeUnderLoad$$' -v ./chaos -args $(DRILL_ARGS) $(if $(FROM),-from $(FROM))

CASES ?= 1000000

.PHONY: day
day: ## a day of 50,000 requests through the ledger, exact to the micro-dollar; its short form is among the tests
	@go test -count 1 -v -timeout 30m ./internal/postgres -run TestDayIsExact -day 50000

.PHONY: compare-prices
compare-prices: ## read and price the same usage here and by genai-prices, LiteLLM and tokenlens; needs npm and Python (CASES=1000000 generated ones)
	@mkdir -p dist/prices && cp test/pricing/package.json dist/prices/
	@npm install --prefix dist/prices --no-package-lock --ignore-scripts --no-audit --no-fund --silent
	@[[ -x dist/prices/venv/bin/python ]] || python3 -m venv dist/prices/venv
	@dist/prices/venv/bin/pip install --quiet --disable-pip-version-check -r test/pricing/requirements.txt
	@$(GO) test -C test -tags compareprices -count 1 -timeout 2h -v -run '^TestCompare' ./pricing -args \
	  -packages $(CURDIR)/dist/prices -random $(CASES) -report $(CURDIR)/dist/prices.md $(ARGS)

.PHONY: test-browser
test-browser: $(TEMPORAL) ## look at the pages for people in a headless Chromium, which has to be installed
	@command -v "$${CHROMIUM:-chromium}" chromium-browser google-chrome >/dev/null || { \
	  echo 'there is no Chromium; install it (Debian: apt install chromium) or say where it is in CHROMIUM' >&2; exit 1; }
	@$(GO) test -count 1 -timeout 5m -tags browser -run '^TestBrowser' ./api
	@$(GO) test -C test -count 1 -timeout 5m -tags browser -run '^TestBrowser' ./statuspage ./temporalui

.PHONY: test-pgbouncer
test-pgbouncer: ## run the ledger through a real PgBouncer in transaction mode, which has to be installed
	@command -v pgbouncer >/dev/null || { echo 'there is no PgBouncer; install it (Debian: apt install pgbouncer)' >&2; exit 1; }
	@$(GO) test -count 1 -timeout 5m -tags pgbouncer -run Pooler -v ./internal/postgres

.PHONY: test-clients
test-clients: $(TEMPORAL) ## run the clients of all languages through the same cases, on a real Earmark too; needs Node.js 20 with npm, and Python 3.11 with venv
	@EARMARK_INTEGRATIONS=1 $(GO) test -C test -count 1 -timeout 30m -v ./conformance

CALLS ?= 10000

.PHONY: test-helm
test-helm: ## lint the Helm chart, render it and check every object and setting; compiles Helm and Kubernetes' types for minutes
	@$(GO) mod -C tools/helm tidy -diff
	@$(GO) vet -C tools/helm ./...
	@$(GO) test -C tools/helm -timeout 20m ./...

.PHONY: test-guarded
test-guarded: $(TEMPORAL) ## make CALLS=10000 guarded calls of models in three languages, which end in every way, while Earmark is killed, and compare each charge with its bill (SEED=…)
	@$(GO) test -C test -count 1 -timeout 0 -v -run '^TestGuardedCalls$$' ./guarded -args -calls $(CALLS) -seed $(or $(SEED),0)

.PHONY: bench
bench: build bin/earmark-bench ## measure Earmark beside floors and alternatives, a quarter of an hour; results in dist/ (ARGS=… for its flags)
	@mkdir -p dist
	@bin/earmark-bench --json dist/bench.json --markdown dist/bench.md --plot dist/bench.svg $(ARGS)

.PHONY: bench-growth
bench-growth: build bin/earmark-bench ## the same on top of up to 10 million settled rows; needs 25 GB of disk and half an hour
	@mkdir -p dist
	@bin/earmark-bench --scenario growth --rows 10000,1000000,10000000 --json dist/bench-growth.json --markdown dist/bench-growth.md $(ARGS)

.PHONY: bench-scale
bench-scale: $(TEMPORAL) bin/temporal-server bin/temporal-sql-tool ## measure lifecycles by the cores that Temporal may use, and tenants over two Postgres servers; Linux
	@PATH="$(CURDIR)/bin:$$PATH" $(GO) test -C test -timeout 20m -tags drills -run '^$$' -bench '^Benchmark(TemporalOnCores|TenantsOverPostgres)$$' -benchtime 1x -v ./chaos

.PHONY: bench-micro
bench-micro: $(TEMPORAL) ## run the benchmarks of single functions
	@$(GO) test -timeout 30m -p 1 -run '^$$' -bench . -benchmem ./...

.PHONY: check
check: check-format check-vet check-lint check-workflows check-modules check-generated check-monitoring check-vulnerabilities ## format, vet, lint, workflow determinism, modules, generated files, alerts and dashboard, vulnerabilities

.PHONY: check-format
check-format:
	@unformatted=$$(gofmt -l .); \
	if [[ -n $$unformatted ]]; then printf 'not formatted; run make fmt:\n%s\n' "$$unformatted"; exit 1; fi

.PHONY: check-vet
check-vet:
	$(GO) vet ./...
	$(GO) vet -tags 'browser mutations pgbouncer record slow' ./... # what make test does not build
	@for module in $(MODULES); do $(GO) vet -C $$module -tags 'browser compareprices drills mutations paused pgbouncer record slow' ./... || exit 1; done

.PHONY: check-lint
check-lint: bin/golangci-lint
	bin/golangci-lint run --allow-parallel-runners
	@for module in $(MODULES); do (cd $$module && $(CURDIR)/bin/golangci-lint run --allow-parallel-runners --config $(CURDIR)/.golangci.yml) || exit 1; done

.PHONY: check-workflows
check-workflows: bin/workflowcheck
	bin/workflowcheck ./workflows/...

.PHONY: check-modules
check-modules: # tidy, no newer Go than a dependency needs, and none of the tests' tools in the product
	@needed=$$($(GO) list -deps -f '{{with .Module}}{{if not .Main}}{{.GoVersion}}{{end}}{{end}}' ./... | sort -V | tail -1); \
	if [[ $$($(GO) list -m -f '{{.GoVersion}}') != "$$needed" ]]; then echo "go.mod asks for another Go than its dependencies, which need $$needed"; exit 1; fi
	@tools=$$($(GO) list -deps ./cmd/earmark ./client/... | grep -E 'toxiproxy|zerolog|chromedp|compose-go|porcupine|goleak|rapid' || true); \
	if [[ -n $$tools ]]; then printf 'the product depends on tools of the tests:\n%s\n' "$$tools"; exit 1; fi
	$(GO) mod tidy -diff
	@for module in $(MODULES); do $(GO) mod -C $$module tidy -diff || exit 1; done

.PHONY: check-generated
check-generated:
	tools/check-generated.sh

.PHONY: check-monitoring
check-monitoring: # with Prometheus' own parser and engine, which are no modules for the product to depend on
	@tools/progress.sh 'checking the alerts and the dashboard' \
	  $(GO) test -C tools/monitoring ./...

.PHONY: check-vulnerabilities
check-vulnerabilities: bin/govulncheck # skipped where the database of vulnerabilities cannot be reached
	@tools/check-vulnerabilities.sh

.PHONY: fmt
fmt: bin/golangci-lint ## format the code and sort its imports
	bin/golangci-lint fmt

bin/goreleaser: tools/release/go.mod tools/release/go.sum
	@tools/progress.sh 'building goreleaser once, about 6 minutes' \
	  $(GO) build -C tools/release $(BUILD_FLAGS) -o ../../$@ github.com/goreleaser/goreleaser/v2

bin/cyclonedx-gomod: tools/release/go.mod tools/release/go.sum
	@tools/progress.sh 'building cyclonedx-gomod once' \
	  $(GO) build -C tools/release $(BUILD_FLAGS) -o ../../$@ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod

# Images need a container engine with buildx.
SKIP_IMAGES := $(if $(shell docker buildx version 2>/dev/null),,--skip=docker)

.PHONY: release-snapshot
release-snapshot: bin/goreleaser bin/cyclonedx-gomod ## build what a release holds into dist/release, without a tag and without publishing; images where Docker is
	@COMMIT=$(COMMIT) PATH="$(CURDIR)/bin:$$PATH" goreleaser release --snapshot --clean $(SKIP_IMAGES)

.PHONY: release
release: bin/goreleaser bin/cyclonedx-gomod ## publish the tag that is checked out, as .goreleaser.yaml says; needs GITHUB_TOKEN and Docker
	@COMMIT=$(COMMIT) PATH="$(CURDIR)/bin:$$PATH" goreleaser release --clean

.PHONY: docs-assets
docs-assets: ## take the viewer of /docs afresh from its npm package, as tools/docs pins it
	tools/docs/build.sh

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist
