#!/bin/sh
# The injector puts itself into a volume, and the app's own image starts under it from there.
set -eu
export BALENA_API_URL="${BALENA_API_URL:-https://api.balena-cloud.com}"
bin="${BIN:-/opt/injector}" # 10 MB, which are no secret: not in the tmpfs for the token
mkdir -p "$bin"
injector install "$bin"
exec "$bin/injector" exec -- sh -c 'curl -fsS -H "Authorization: Bearer $BALENA_TOKEN" "$BALENA_API_URL/actor/v1/whoami"'
