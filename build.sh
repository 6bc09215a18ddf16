#!/bin/sh
# Builds the injector as it is released, into the file OUTPUT. This is the only place that knows how: the Makefile, the
# image, the demo, the tests and the measurements call it.
#
#   sh build.sh OUTPUT [TAGS]
#
# VERSION names a release and REVISION its commit, where Go cannot know them; GOOS, GOARCH and GOARM another machine; GO another compiler.
set -eu
output=$1 tags=${2:-}
case $output in /*) ;; *) output=$PWD/$output ;; esac
cd "$(dirname "$0")"
# The API is spoken to in HTTP/1.1; the code for HTTP/2 is half a megabyte.
CGO_ENABLED=0 exec "${GO:-go}" build -trimpath -tags "nethttpomithttp2${tags:+,$tags}" \
    -ldflags "-s -w${VERSION:+ -X main.release=$VERSION}${REVISION:+ -X main.commit=$REVISION}" -o "$output" ./cmd/injector
