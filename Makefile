# Two commands do all set-up on a machine with Go alone:
#   make demo   the whole life of a key in half a minute, against the stand-in
#   make test   the product's tests and linters (needs a C compiler for the race detector)
# and one wants a Docker Engine:
#   make e2e    the image, the Compose examples and the Kubernetes manifests, run for real

GO ?= go
BIN := $(CURDIR)/bin
VERSION ?=
LINTERS := $(BIN)/staticcheck $(BIN)/errcheck $(BIN)/revive $(BIN)/actionlint
.PHONY: demo test unit fuzz lint lint-e2e vulnerabilities downloads build image e2e cluster prove bench clients release clean

demo:
	@echo "building the demo: a minute or two the first time, with a name for each package"
	@$(GO) build -v -o $(BIN)/demo ./examples/demo
	@$(BIN)/demo

build:
	GO=$(GO) VERSION=$(VERSION) sh build.sh $(BIN)/injector

image:
	docker build $(if $(GO_IMAGE),--build-arg GO_IMAGE=$(GO_IMAGE)) \
	    --build-arg VERSION="$(or $(VERSION),$$(git describe --tags --always --dirty))" \
	    --build-arg REVISION="$$(git rev-parse HEAD)" --build-arg CREATED="$$(git log -1 --format=%cI)" -t balena-token-injector .

# All files of a release in dist/: binaries, man page and completions, what is in them, images, checksums. The same source
# makes the same bytes. Needs git, and nothing else: no engine. Go fetches the modules of release/ first, 40 MB.
release:
	@test -n "$(VERSION)" || { echo "say which: make release VERSION=1.2.3"; exit 1; }
	cd release && $(GO) run . -version $(VERSION) -output ../dist $(RELEASE_FLAGS)

test: lint unit fuzz

# The image and the examples on a real engine; needs busybox, and docker-compose or Docker's Compose. With
# 'make cluster' before it the manifests are applied to a real Kubernetes cluster, too; that needs root, containerd,
# the CNI plugins and openssl.
e2e:
	@docker version >/dev/null 2>&1 || echo "LEFT OUT: the image and the Compose examples; there is no Docker Engine"
	@test -x $(BIN)/cluster || echo "LEFT OUT: the manifests on a Kubernetes cluster; 'make cluster' builds one"
	cd e2e && $(GO) test -count=1 -v -timeout 40m -parallel 4 . # they wait for others most of the time

# Kubernetes from its own modules, for the tests: 5 to 10 minutes on 2 cores, the first time.
cluster: $(BIN)/cluster

$(BIN)/cluster: e2e/cluster/main.go e2e/cluster/go.mod e2e/cluster/go.sum
	@echo "Go fetches the modules of Kubernetes that are not there yet, 2 GB unpacked, and compiles them: 5 to 10 minutes"
	cd e2e/cluster && CGO_ENABLED=0 $(GO) build -ldflags="-s -w" -o $@ .

# Some inputs for each fuzz target, beyond the seeds that every test run tries.
fuzz:
	@GO=$(GO) sh tools/fuzz.sh 2000

# With -count=1, because to cache a result Go looks at every file that a test has touched: over a minute here.
unit:
	@test -d internal/clients/node_modules || echo "LEFT OUT: tests with the balena CLI and SDK; 'make clients' installs them (Node 20.6 to 22, npm)"
	@command -v python3 >/dev/null || echo "LEFT OUT: the test with an exporter in Python: there is no python3"
	$(GO) test -count=1 -race -timeout 90m ./... # 9 minutes on two cores; the limit is for half a core
	$(GO) test -count=1 -timeout 60m ./agent -run 'TestFaultMatrix|TestManyAgents|TestOutagesThatEndInTime' # whole: with the race detector they are slow

# What revive.toml asks for: no line over 140 columns, no file over 300 lines, no function over 60, and few branches.
lint: downloads $(LINTERS)
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "run gofmt -w on these files"; exit 1; }
	@test -z "$$($(GO) fix -diff ./... | tee /dev/stderr)" || { echo "run go fix ./..."; exit 1; }
	$(GO) vet ./...
	$(BIN)/staticcheck ./...
	$(BIN)/errcheck ./...
	$(BIN)/revive -config revive.toml -set_exit_status ./...
	$(BIN)/actionlint
	GOOS=darwin $(GO) build -o /dev/null ./cmd/injector
	GOARCH=arm GOARM=6 CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/injector

# Known vulnerabilities in what is used; asks vuln.go.dev.
vulnerabilities:
	$(GO) run golang.org/x/vuln/cmd/govulncheck@latest ./...

# What is fetched is said first.
downloads:
	@echo "Go fetches the modules that are not there yet: 3 MB for the product, 12 MB for the linters"

# The other modules. The end-to-end tests need those of Kubernetes: this is for CI, and for those who change these parts.
lint-e2e: $(LINTERS)
	@echo "Go fetches the modules that are not there yet: 2 GB of Kubernetes, 40 MB for the release"
	for module in release e2e; do (cd $$module && test -z "$$(gofmt -l . | tee /dev/stderr)" && $(GO) vet ./... && \
	    $(BIN)/staticcheck ./... && $(BIN)/errcheck ./... && $(BIN)/revive -config ../revive.toml -set_exit_status ./...) || exit 1; done

# The linters have a module of their own, so that the product's go.mod stays small.
$(BIN)/staticcheck: LINTER := honnef.co/go/tools/cmd/staticcheck
$(BIN)/errcheck: LINTER := github.com/kisielk/errcheck
$(BIN)/revive: LINTER := github.com/mgechev/revive
$(BIN)/actionlint: LINTER := github.com/rhysd/actionlint/cmd/actionlint
$(LINTERS): tools/go.mod tools/go.sum
	cd tools && $(GO) build -o $@ $(LINTER)

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
	rm -rf $(BIN) dist
