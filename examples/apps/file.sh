#!/bin/sh
# The app reads a file with the token, at each request.
set -eu
export BALENA_API_URL="${BALENA_API_URL:-https://api.balena-cloud.com}"
export INJECTOR_OUTPUT="${SECRETS:=/secrets}/balena-token"
injector run &
trap 'kill $!; wait' EXIT
injector wait -- sh -c 'curl -fsS -H "Authorization: Bearer $(cat "$1")" "$BALENA_API_URL/actor/v1/whoami"' app "$INJECTOR_OUTPUT"
