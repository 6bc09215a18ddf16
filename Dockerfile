# The image of the balena token injector: one static binary and the certificates of the world.
#
#   docker build --build-arg VERSION="$(git describe --tags --always --dirty)" -t balena-token-injector .
#
# or "make image", which also says which commit it is from, and when that was made. The released images are made by release/
# without an engine, with the same content and configuration, and the same bytes each time.
#
# For another machine, with the classic builder and with BuildKit:
#
#   docker build --build-arg TARGETARCH=arm --build-arg TARGETVARIANT=v6 -t balena-token-injector:armv6 .
#   docker buildx build --platform linux/amd64,linux/arm64,linux/arm/v7,linux/arm/v6 .
#
# GO_IMAGE needs Go 1.26 and /etc/ssl/certs/ca-certificates.crt. Nothing of it but the certificates
# gets into the image.
ARG GO_IMAGE=golang:1.26-bookworm

# The compiler runs on the machine that builds, whatever it builds for. The classic builder does not know
# BUILDPLATFORM: "linux" alone is its own platform.
FROM --platform=${BUILDPLATFORM:-linux} ${GO_IMAGE} AS source
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .

FROM source AS build
ARG TARGETARCH
ARG TARGETVARIANT
ARG VERSION
ARG REVISION
RUN mkdir -p /image/etc/ssl/certs /image/licenses /image/secrets \
 && chmod 1777 /image/secrets \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && cp LICENSE /image/licenses/ \
 && GOOS=linux GOARCH=${TARGETARCH} GOARM=${TARGETVARIANT#v} GOFLAGS=-buildvcs=false sh build.sh /image/injector

# /secrets is there so that a tmpfs at it, as in "docker run --tmpfs /secrets", takes its mode over, also when the
# container is restarted: engines give it to root otherwise, and the injector runs as another user.

# For examples/compose/demo.yaml alone: the stand-in for the API, and an app.
FROM source AS build-demo
RUN CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags="-s -w" -o /image/ ./cmd/standin ./examples/compose/app

FROM scratch AS demo
COPY --from=build-demo /image/ /
USER 65532:65532

# The last stage is what "docker build" makes.
FROM scratch
COPY --from=build /image/ /
ARG VERSION=devel
ARG REVISION
ARG CREATED
LABEL org.opencontainers.image.title="balena token injector" \
      org.opencontainers.image.description="Keeps one short-lived balena API key in a file in memory for an app beside it" \
      org.opencontainers.image.source="https://github.com/balena-injector/injector" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
USER 65532:65532
STOPSIGNAL SIGTERM
# Every 2 s from the start: apps wait for it, and engines before 25 have no interval for the start alone. Each check costs the
# engine a process, so one that has no news is held for up to a minute.
HEALTHCHECK --interval=2s --timeout=75s --retries=3 CMD ["/injector", "healthcheck", "--hold=1m"]
ENTRYPOINT ["/injector"]
CMD ["run"]
