#!/bin/sh
# The app knows basic authentication from a .netrc file only. balena's API wants a bearer; this is for
# proxies and registries that take the token as a password.
set -eu
export BALENA_API_URL="${BALENA_API_URL:-https://api.balena-cloud.com}"
export INJECTOR_TEMPLATES="netrc:${SECRETS:=/secrets}/netrc"
injector run &
trap 'kill $!; wait' EXIT
injector wait
curl -sS -v --netrc-file "$SECRETS/netrc" "$BALENA_API_URL/ping" 2>&1 | grep -i '^> authorization: basic ' | cut -c1-23
