# Two commands do all set-up on a machine with Go alone:
#   make demo   the whole life of a key in half a minute, against the stand-in
#   make test   the product's tests and linters (needs a C compiler for the race detector)
# and one wants a Docker Engine:
#   make e2e    the image, the Compose examples and the Kubernetes manifests, run for real

GO ?= go
BIN := $(CURDIR)/bin
VERSION ?=
.PHONY: demo test unit fuzz lint lint-e2e downloads build image e2e cluster prove bench clients clean

demo:
	@echo "building the demo: a minute or two the first time, with a name for each package"
	@$(GO) build -v -o $(BIN)/demo ./examples/demo
	@$(BIN)/demo

build:
	GO=$(GO) VERSION=$(VERSION) sh build.sh $(BIN)/injector

image:
	docker build $(if $(GO_IMAGE),--build-arg GO_IMAGE=$(GO_IMAGE)) -t balena-token-injector .

test: lint unit fuzz

# The image and the examples on a real engine; needs busybox, and docker-compose or Docker's Compose. With
# 'make cluster' before it the manifests are applied to a real Kubernetes cluster, too; that needs root, containerd,
# the CNI plugins and openssl.
e2e:
	@docker version >/dev/null 2>&1 || echo "LEFT OUT: the image and the Compose examples; there is no Docker Engine"
	@test -x $(BIN)/cluster || echo "LEFT OUT: the manifests on a Kubernetes cluster; 'make cluster' builds one"
	cd e2e && $(GO) test -count=1 -v -timeout 20m -parallel 4 . # they wait for others most of the time

# Kubernetes from its own modules, for the tests: 5 to 10 minutes on 2 cores, the first time.
cluster: $(BIN)/cluster

$(BIN)/cluster: e2e/cluster/main.go e2e/cluster/go.mod e2e/cluster/go.sum
	@echo "Go fetches the modules of Kubernetes that are not there yet, 2 GB unpacked, and compiles them: 5 to 10 minutes"
	cd e2e/cluster && CGO_ENABLED=0 $(GO) build -ldflags="-s -w" -o $@ .

# Some inputs for each, beyond the seeds that every test run tries. By count: with a time, Go sometimes
# takes the end of the time for a failure.
fuzz:
	@for f in balena:FuzzSession balena:FuzzQuoted balena:FuzzRetryAfter balena:FuzzRows balena:FuzzAnswers agent:FuzzJournal cmd/injector:FuzzVariables cmd/injector:FuzzCredentialFiles render:FuzzTemplates; do \
		echo "fuzz $$f"; $(GO) test ./$${f%%:*} -run '^$$' -fuzz "^$${f##*:}\$$" -fuzztime 2000x >fuzz.log 2>&1 || { cat fuzz.log; exit 1; }; done; rm -f fuzz.log

# With -count=1, because to cache a result Go looks at every file that a test has touched: over a minute here.
unit:
	@test -d internal/clients/node_modules || echo "LEFT OUT: tests with the balena CLI and SDK; 'make clients' installs them (Node 20.6 to 22, npm)"
	@command -v python3 >/dev/null || echo "LEFT OUT: the test with an exporter in Python: there is no python3"
	$(GO) test -count=1 -race -timeout 90m ./... # 6 minutes on two cores; the limit is for half a core
	$(GO) test -count=1 -timeout 60m ./agent -run 'TestFaultMatrix|TestManyAgents|TestOutagesThatEndInTime' # whole: with the race detector they are slow

lint: downloads $(BIN)/staticcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "run gofmt -w on these files"; exit 1; }
	$(GO) vet ./...
	$(BIN)/staticcheck ./...
	GOOS=darwin $(GO) build -o /dev/null ./cmd/injector
	GOARCH=arm GOARM=6 CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/injector

# What is fetched is said first.
downloads:
	@echo "Go fetches the modules that are not there yet: 3 MB for the product, 5 MB for the linter"

# The end-to-end tests need the modules of Kubernetes: this is for CI, and for those who change these tests.
lint-e2e: $(BIN)/staticcheck
	@echo "Go fetches the modules of Kubernetes that are not there yet: 2 GB unpacked"
	cd e2e && $(GO) vet ./... && $(BIN)/staticcheck ./...

# The linter has a module of its own, so that the product's go.mod stays small.
$(BIN)/staticcheck: tools/go.mod tools/go.sum
	cd tools && $(GO) build -o $@ honnef.co/go/tools/cmd/staticcheck

# The long versions of the tests that can be long, and a table of what they counted. 15 minutes.
prove:
	$(GO) run ./internal/prove

# The balena CLI and SDK, for the tests with real clients.
clients:
	@echo "npm fetches what is not there yet: 500 MB unpacked"
	cd internal/clients && npm ci --ignore-scripts --no-audit --no-fund

bench:
	$(GO) run ./internal/bench

clean:
	rm -rf $(BIN)
