#!/bin/sh
# Makes an image with this machine's Go, its certificates, busybox and the product's modules, on which
# the Dockerfile builds where no registry can be reached:
#
#   e2e/toolchain.sh injector-toolchain
#   docker build --build-arg GO_IMAGE=injector-toolchain .
#
# A second image, NAME-busybox, stands for the apps of the examples.
set -eu
name=${1:?say what to call the image}
busybox=$(command -v busybox) || { echo "busybox is missing: apt-get install busybox-static" >&2; exit 1; }
project=$(cd "$(dirname "$0")/.." && pwd)
goroot=$(go env GOROOT)
modules=$(go env GOMODCACHE)
(cd "$project" && go mod download)
root=$(mktemp -d)
trap 'chmod -R u+w "$root" && rm -rf "$root"' EXIT

mkdir -p "$root/app/bin" "$root/app/etc" "$root/app/tmp"
chmod 1777 "$root/app/tmp"
cp "$busybox" "$root/app/bin/busybox"
for applet in $("$busybox" --list); do [ "$applet" = busybox ] || ln -s busybox "$root/app/bin/$applet"; done
printf 'root:x:0:0::/:/bin/sh\n' >"$root/app/etc/passwd"
tar -C "$root/app" -c . | docker import -c 'ENV PATH=/bin' -c 'CMD ["sh"]' - "$name-busybox" >/dev/null

mv "$root/app" "$root/go"
mkdir -p "$root/go/etc/ssl/certs" "$root/go/usr/local" "$root/go/root/go/pkg/mod"
cp /etc/ssl/certs/ca-certificates.crt "$root/go/etc/ssl/certs/"
mkdir "$root/go/usr/local/go"
tar -C "$goroot" -c --exclude=./test --exclude=./api --exclude=./doc . | tar -C "$root/go/usr/local/go" -x
GOMODCACHE="$root/go/root/go/pkg/mod" GOPROXY="file://$modules/cache/download" GOSUMDB=off GOFLAGS=-modcacherw \
    sh -c "cd '$project' && go mod download"
tar -C "$root/go" -c . | docker import -c 'ENV PATH=/usr/local/go/bin:/bin' -c 'ENV HOME=/root' -c "ENV GOPROXY=off GOTOOLCHAIN=local" - "$name" >/dev/null
echo "made $name and $name-busybox"
