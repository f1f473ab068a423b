# make alone lists what there is. `make demo` and `make test` are where to start.

STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2
COMMIT      := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
VERSION     ?= 0.1.0-dev
LDFLAGS      = -X main.version=$(VERSION) -X main.commit=$(COMMIT)
FUZZTIME    ?= 60s
SIMRUNS     ?= 200
MODELSTEPS  ?= 1000000
LMCACHE     ?= 0.5.6
SOAK        ?= 600
GOTESTFLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help build test unit lint fuzz sim bench e2e failover visibility demo interop soak clean libzmq haproxy netns

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

libzmq:
	@scripts/need-libzmq.sh

haproxy:
	@scripts/need-haproxy.sh

netns:
	@scripts/need-netns.sh

build: libzmq ## build bin/kvctrld
	go build -ldflags '$(LDFLAGS)' -o bin/kvctrld ./cmd/kvctrld

test: libzmq haproxy netns lint unit ## everything a change must pass: gofmt, vet, staticcheck, all tests: with the race detector, and the cluster under load without it

unit:
	go test -race -timeout 20m $(GOTESTFLAGS) ./...
	go test -count=1 -timeout 20m -run '^TestCluster_' ./internal/e2e
	go test -count=1 -timeout 20m -run '^TestModel$$' ./ingest -model.steps $(MODELSTEPS)

lint: libzmq ## gofmt, vet, staticcheck, go mod tidy
	@unformatted=$$(gofmt -l $$(find . -name '*.go' -not -path './.*')); if [ -n "$$unformatted" ]; then echo "not formatted with gofmt:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...
	go mod tidy -diff

fuzz: libzmq ## every fuzz target for FUZZTIME (60s)
	scripts/fuzz.sh $(FUZZTIME)

sim: ## the simulated cluster with SIMRUNS (200) seeds, without the race detector
	go test -run 'TestSim_' -timeout 60m $(GOTESTFLAGS) ./cluster -sim.runs $(SIMRUNS)

bench: libzmq ## the benchmarks behind the figures in the docs
	go test -run '^$$' -bench . -benchmem ./...

e2e: libzmq netns ## three real replicas under full load, hurt in every way, for long (three quarters of an hour)
	go test -count=1 -timeout 90m -v -run '^TestCluster_' $(GOTESTFLAGS) ./internal/e2e -e2e.long

failover: libzmq ## how long nobody takes a mutation after kill -9 of the leader, and after SIGTERM: 20 times each
	go test -count=1 -timeout 20m -run '^$$' -bench '^BenchmarkFailover_' -benchtime 1x ./internal/e2e

visibility: libzmq ## how long an admit takes from a follower to a lookup on the third replica
	go test -count=1 -timeout 20m -run '^$$' -bench '^BenchmarkVisibility$$' -benchtime 1x ./internal/e2e

demo: build ## three replicas, a simulated fleet, lookups and commands at any of them, kill -9 of the leader
	scripts/demo.sh

interop: build ## the same story with real LMCache engines (LMCACHE=0.5.6): beside LMCache's own controller, with messages lost, and behind HAProxy with replicas killed
	cd interop && python3 -m unittest -q
	LMCACHE=$(LMCACHE) interop/run.sh

soak: build ## real engines behind three replicas that store, clear and move at random for SOAK (600) seconds; the index against what they hold
	LMCACHE=$(LMCACHE) SOAK=$(SOAK) interop/run.sh --only soak

clean: ## remove what was built; .interop (LMCache's virtual environment) stays
	rm -rf bin
