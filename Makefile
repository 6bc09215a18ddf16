# Two commands do all set-up on a machine with Go alone:
#   make demo   the whole life of a key in half a minute, against the stand-in
#   make test   all tests and linters (needs a C compiler for the race detector)

GO ?= go
BIN := $(CURDIR)/bin
VERSION ?=
LDFLAGS := -s -w$(if $(VERSION), -X main.release=$(VERSION))

.PHONY: demo test unit lint build prove bench clean

demo:
	$(GO) run ./examples/demo

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags="$(LDFLAGS)" -o $(BIN)/injector ./cmd/injector

test: lint unit

unit:
	$(GO) test -race ./...

lint: $(BIN)/staticcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "run gofmt -w on these files"; exit 1; }
	$(GO) vet ./...
	$(BIN)/staticcheck ./...
	GOOS=darwin $(GO) build -o /dev/null ./cmd/injector
	GOARCH=arm GOARM=6 CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/injector

# The linter has a module of its own, so that the product's go.mod stays small.
$(BIN)/staticcheck: tools/go.mod tools/go.sum
	cd tools && $(GO) build -o $@ honnef.co/go/tools/cmd/staticcheck

# The long versions of the tests that can be long, and their counts.
prove:
	$(GO) test ./agent -run 'TestFaultMatrix|TestDaysOfRandomFailures|TestNoSecretInTheLog' -long -timeout 30m -v | grep -E '^(---|ok|FAIL| +[a-z_]+\.go:)'
	$(GO) test ./cmd/injector -run TestCrashMatrix -count 1 -v | grep -E '^(---|ok|FAIL| +[a-z_]+\.go:)'
	$(GO) test ./render -run TestReadersSeeWholeValues -count 1 -v | grep -E '^(---|ok|FAIL)'
	for f in FuzzSession FuzzQuoted FuzzRetryAfter FuzzRows; do $(GO) test ./balena -run '^$$' -fuzz "^$$f$$" -fuzztime 30s || exit 1; done
	$(GO) test ./agent -run '^$$' -fuzz '^FuzzJournal$$' -fuzztime 30s

bench:
	$(GO) run ./internal/bench

clean:
	rm -rf $(BIN)
