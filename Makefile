# Needs Go, git and a POSIX shell; the race detector also wants a C compiler. Every other tool is a Go tool pinned under
# tools/ and is compiled on first use (a few minutes, once).

# ---- what can be set on the command line ------------------------------------------------------------------------------

VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
RACE      ?= $(if $(shell command -v $$(go env CC) 2>/dev/null),-race)# empty: no C compiler, no race detector
FUZZTIME  ?= 30s
BENCH     ?= .
BENCHTIME ?= 0.3s
COUNT     ?= 6
ROUNDS    ?= 6
OLD       ?=# empty: where this branch left main; on main the last commit, or the one before it if nothing has changed since
NEW       ?=# empty: the working tree
SOAK      ?= 60s
ARGS      ?=

# ---- tools ------------------------------------------------------------------------------------------------------------

# Several module files, so that the tools' dependencies meet neither the product's nor each other's.
BUF      := go tool -modfile=tools/buf/go.mod buf
LINT     := go tool -modfile=tools/lint/go.mod golangci-lint
TOOL     := go tool -modfile=tools/go.mod
OPENAPI  := docs-cms/reference/openapi

# ---- coverage ---------------------------------------------------------------------------------------------------------

# Floors in percent. A package is covered by its own tests alone, the conformance suites it runs included; what acceptance tests
# reach does not count. The first pattern that matches decides.
FLOORS := patterns/multicast_registry=85 patterns/multicast_registry/filter=90 'patterns/*=80' total=85
# Not counted: generated code, and code that exists for tests and development only.
UNCOUNTED := gen patterns/multicast_registry/slottest internal/tools

# Packages begin in the order in which they are listed: those that take longest first.
TESTS := ./tests/acceptance ./patterns/redis ./patterns/nats ./internal/proxy ./...

# ---- benchmarks -------------------------------------------------------------------------------------------------------

# Those that tell medians and percentiles of one long run: COUNT is not for them.
ONCE := Benchmark(EnumerateInProcess|EnumerateOverGRPC|WatchLatency|Storm)$$

# ---- targets ----------------------------------------------------------------------------------------------------------

.PHONY: all
all: help check ## what plain `make` does: this list, then check

.PHONY: help
help: ## list the targets
	@printf 'Targets (make TARGET):\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@printf '\n'

.PHONY: demo
demo: ## the whole product in one process, on real data (ARGS=... are passed on)
	@go run ./cmd/prism demo $(ARGS)

.PHONY: run
run: ## start a server on 127.0.0.1:8980 (gRPC) and :8981 (HTTP) (ARGS=... are passed on)
	@go run ./cmd/prism serve $(ARGS)

.PHONY: build
build: ## build bin/prism
	go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/prism ./cmd/prism

# The same commit, version and Go make the same bytes: no path, no clock and no user gets into them.
.PHONY: dist
dist: ## static binaries for linux, amd64 and arm64, packed into dist/ with checksums and SBOMs (wants GNU tar)
	@rm -rf dist/stage dist/prism-* dist/SHA256SUMS
	@set -eu; epoch=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 0)}; \
	for arch in amd64 arm64; do \
		name='prism-$(VERSION)'-linux-$$arch; to=dist/stage/$$name; echo "$$name"; mkdir -p "$$to/examples" "$$to/systemd"; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch go build -trimpath -buildvcs=auto -ldflags '-s -w -X main.version=$(VERSION)' \
			-o "$$to/prism" ./cmd/prism; \
		$(TOOL) cyclonedx-gomod bin -json -std -noserial -notimestamp -version '$(VERSION)' \
			-output "dist/$$name.cdx.json" "$$to/prism" 2>dist/stage/sbom.log || { cat dist/stage/sbom.log >&2; exit 1; }; \
		cp LICENSE README.md "$$to"; cp examples/*.yaml "$$to/examples"; cp deployments/systemd/prism.* "$$to/systemd"; \
		tar -C dist/stage --sort=name --mtime="@$$epoch" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --format=ustar \
			-cf "dist/stage/$$name.tar" "$$name"; \
		gzip -9nc "dist/stage/$$name.tar" >"dist/$$name.tar.gz"; \
	done; \
	rm -r dist/stage; cd dist && sha256sum prism-* >SHA256SUMS && cat SHA256SUMS

.PHONY: test
test: race-or-say-so ## every test once, with the race detector; leaves a coverage profile for `make cover`
	@mkdir -p coverage && rm -f coverage/tests.out
	go test $(RACE) -timeout 15m -coverprofile=coverage/tests.out $(TESTS)

.PHONY: race
race: ## hunt races: three shuffled rounds of all that runs concurrently
	go test -race -count=3 -shuffle=on -timeout 20m ./patterns/... ./internal/... ./client/... ./tests/...

.PHONY: acceptance
acceptance: race-or-say-so ## the acceptance scenarios alone, told step by step
	go test $(RACE) -count=1 -v -timeout 10m ./tests/acceptance/...

.PHONY: soak
soak: race-or-say-so ## everything fails at random for SOAK (60s), and every message is accounted for; then as long, and nothing leaks
	PRISM_SOAK=$(SOAK) go test $(RACE) -count=1 -v -timeout 60m -run Soak ./tests/acceptance
	PRISM_SOAK=$(SOAK) go test -count=1 -v -timeout 60m ./tests/leaks

.PHONY: race-or-say-so
race-or-say-so:
	@test -n '$(RACE)' || echo 'NO RACE DETECTOR: it needs a C compiler ('"$$(go env CC)"'); the tests run without it' >&2

.PHONY: cover
cover: test cover-floors ## test, then print coverage and fail below the floors

.PHONY: cover-floors
cover-floors: ## judge the coverage profile that the last `make test` left
	@go run ./internal/tools/coverfloor $(foreach p,$(UNCOUNTED),-exclude $(p)) \
		-profile coverage/tests.out $(FLOORS)

.PHONY: bench
bench: ## run benchmarks COUNT times and print medians (BENCH=regexp COUNT=6 BENCHTIME=0.3s)
	@mkdir -p dist
	@found=$$(grep -roE '^func Benchmark[A-Za-z0-9_]+' --include='*_test.go' . | sed -E 's|^(.*)/[^/]*:func (.*)$$|\1 \2|'); \
	often=$$(echo "$$found" | grep -vE '$(ONCE)' | cut -d' ' -f2 | sort -u | paste -sd '|' -); \
	packages() { cut -d' ' -f1 | sort -u; }; \
	run() { go test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) -timeout 60m "$$@" \
		>>dist/bench.txt || { cat dist/bench.txt; exit 1; }; }; \
	echo "running, about $(COUNT) x $(BENCHTIME) for each benchmark:" $$(echo "$$found" | packages); \
	: >dist/bench.txt; \
	run -count $(COUNT) -skip '$(ONCE)' $$(echo "$$found" | packages); \
	run -count 1 -skip "^($$often)\$$" $$(echo "$$found" | grep -E '$(ONCE)' | packages); \
	$(TOOL) benchstat dist/bench.txt

.PHONY: figures
figures: ## measure the figures of README's table (COUNT=6)
	@mkdir -p dist
	go test -run '^$$' -bench '^Benchmark(Call|Register|Enumerate|Multicast)$$' -benchtime $(BENCHTIME) -count $(COUNT) \
		-timeout 60m ./tests/acceptance >dist/figures.txt || { cat dist/figures.txt; exit 1; }
	@$(TOOL) benchstat dist/figures.txt

.PHONY: bench-compare
bench-compare: ## compare two revisions, or one and the working tree (OLD=HEAD~1 NEW=HEAD ROUNDS=6 BENCH=regexp)
	@go run ./internal/tools/benchcompare -old '$(OLD)' -new '$(NEW)' -rounds $(ROUNDS) -benchtime $(BENCHTIME) \
		$(if $(filter-out file,$(origin BENCH)),-bench '$(BENCH)')
	@$(TOOL) benchstat old=dist/bench-old.txt new=dist/bench-new.txt

.PHONY: plots
plots: ## measure how cost grows and write docs-cms/performance* and capacity.md (ARGS=... are passed on; wants redis-server)
	go run ./internal/tools/plots $(ARGS)

.PHONY: fuzz
fuzz: ## fuzz every Fuzz function for FUZZTIME (30s) each
	@grep -rnoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' . | sed -E 's|^(.*)/[^/]*:func (Fuzz.*)$$|\1 \2|' | \
	while read -r package target; do \
		echo "$$package $$target"; \
		go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$package </dev/null || exit 1; \
	done

.PHONY: lint lint-go lint-proto lint-mod
lint: lint-go lint-proto lint-mod ## golangci-lint, go vet, buf lint and format, go mod tidy
lint-go:
	$(LINT) run ./...
	go vet ./...
	GOARCH=386 go build ./client
lint-proto:
	$(BUF) lint
	$(BUF) format --diff --exit-code
lint-mod:
	go mod tidy -diff

.PHONY: lint-deployments
lint-deployments: ## check the Dockerfile and deployments/ with the code of what reads them
	cd tools/deploy && go test -count=1 ./...
	@command -v systemd-analyze >/dev/null || { echo 'NOT CHECKED: the systemd unit, for want of systemd-analyze' >&2; exit 0; }; \
	tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	sed 's|^ExecStart=/usr/local/bin/prism|ExecStart=/bin/true|' deployments/systemd/prism.service >"$$tmp/prism.service" && \
	systemd-analyze verify --man=no "$$tmp/prism.service" >"$$tmp/out" 2>&1 && test ! -s "$$tmp/out" || \
	{ cat "$$tmp/out" >&2; exit 1; }; \
	systemd-analyze security --offline=true --threshold=20 --no-pager "$$tmp/prism.service" >"$$tmp/out" || \
	{ cat "$$tmp/out" >&2; exit 1; }; \
	tail -n 1 "$$tmp/out"

.PHONY: fmt
fmt: ## format Go and proto files
	$(LINT) fmt ./...
	$(BUF) format --write

.PHONY: generate
generate: ## write gen/ and the OpenAPI document from proto/, and the reference of the configuration; what is stale goes away
	$(BUF) generate
	go run ./internal/tools/configdoc

.PHONY: check-generated
check-generated: ## fail if generated files differ from what `make generate` would write
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && $(BUF) generate --output "$$tmp" && \
	diff -r "$$tmp/gen" gen && diff -r "$$tmp/$(OPENAPI)" $(OPENAPI) && echo 'generated files are up to date' || \
	{ echo 'generated files differ from proto/: run make generate' >&2; exit 1; }

.PHONY: vuln
vuln: ## look up known vulnerabilities in what we call (needs the network)
	$(TOOL) govulncheck ./...

.PHONY: check
check: lint check-generated cover ## all that must be green before a commit; runs each test once

.PHONY: stations
stations: ## fetch the source data again and rewrite examples/stations.jsonl (needs node and npm)
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && for v in 1.0.6 3.1.0; do \
		(cd "$$tmp" && npm pack --silent "airport-data-js@$$v" >/dev/null && mkdir "$$v" && \
			tar -xzf "airport-data-js-$$v.tgz" -C "$$v") || exit 1; \
	done && node examples/stations.js "$$tmp/1.0.6/package" "$$tmp/3.1.0/package" >"$$tmp/stations.jsonl" && \
	mv "$$tmp/stations.jsonl" examples/stations.jsonl

.PHONY: clean
clean: ## remove what building and testing left behind
	rm -rf bin dist coverage
