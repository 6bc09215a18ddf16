#!/bin/sh
# A script uses curl: the token is in a file with the whole header, and in no process list.
set -eu
export BALENA_API_URL="${BALENA_API_URL:-https://api.balena-cloud.com}"
export INJECTOR_TEMPLATES="header:${SECRETS:=/secrets}/authorization"
injector run &
trap 'kill $!; wait' EXIT
injector wait
curl -fsS -H "@$SECRETS/authorization" "$BALENA_API_URL/actor/v1/whoami"
