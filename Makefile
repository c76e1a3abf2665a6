# Ironring. `make help` tells what can be made.
#
# A fresh machine needs Go, git, make and a C compiler (for the race detector).
# Whatever else a target needs it installs with apt-get when it runs as root on
# Debian; where it may not, it says what is missing.

# Without this tag raft and memberlist count in a module that its authors have
# given up (armon/go-metrics). GOFLAGS carries it to every go command below.
TAGS := hashicorpmetrics
export GOFLAGS := -tags=$(TAGS)

GO      := go
BIN     := bin
LINT    := $(GO) tool -modfile=tools/golangci-lint/go.mod golangci-lint
FUZZTIME ?= 20s
BENCH    ?= .

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@echo "make TARGET, where TARGET is one of:"
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Start with: make demo. Before a commit: make quick. Before a push: make test."

.PHONY: build
build: ## build bin/ironring and bin/ironring-agent (static)
	@mkdir -p $(BIN)
	@for c in ironring ironring-agent; do \
		[ ! -d cmd/$$c ] || CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o $(BIN)/$$c ./cmd/$$c || exit 1; \
	done

.PHONY: demo
demo: build ## three peers and simulated machines in one directory: enrol, inspect, deploy, kill a peer, finish (no root)
	$(BIN)/ironring lab --peers 3 --nodes 5 --once

.PHONY: quick
quick: ## build, vet and unit tests without the race detector: under 3 minutes
	@tools/check quick

.PHONY: test
test: ## everything: unit tests with -race, lint, generated code, client, e2e (root on Debian)
	@tools/check test

.PHONY: race
race: ## unit and cluster tests with the race detector
	$(GO) test -race -timeout 10m ./...

.PHONY: lint
lint: ## golangci-lint, with the version of tools/golangci-lint/go.mod
	$(LINT) run ./...

.PHONY: proto
proto: ## regenerate the Go code of api/*.proto and the generated documents
	@tools/generate write

.PHONY: e2e
e2e: ## real machines in QEMU behind BMCs of another project: about 15 minutes, root, Debian
	@tools/check e2e

.PHONY: e2e-all
e2e-all: ## e2e and the cases that take longer
	@tools/check e2e-all

# Without the bound an input whose coverage is not the same each time (servers
# have goroutines) is made smaller for a minute, in which nothing is tried.
.PHONY: fuzz
fuzz: ## every fuzz test for FUZZTIME (20s) each
	@$(GO) list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | while read -r p; do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "== $$p $$f"; \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $$p || exit 1; \
		done; \
	done

.PHONY: bench
bench: ## all benchmarks (BENCH=regexp), with the ceilings measured in the same run, and a table of goals (BENCH_CHECK=1 fails below them)
	@BENCH="$(BENCH)" tools/bench $(if $(BENCH_CHECK),check)

.PHONY: bench-check
bench-check: ## bench, and fail unless every goal of docs/testing.md is met
	@BENCH="$(BENCH)" tools/bench check

.PHONY: bench-agent
bench-agent: ## how fast the agent writes images to a loop device, beside dd and sha256sum (root)
	@BENCH=WriteImage tools/bench

.PHONY: bench-storm
bench-storm: ## 300 simulated machines come on within 10 s, and one of three peers is killed
	@BENCH=BootStorm tools/bench

.PHONY: clean
clean: ## remove what was built and what the e2e runs wrote; caches stay
	rm -rf $(BIN) e2e-out
