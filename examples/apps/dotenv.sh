#!/bin/sh
# The app reads a dotenv file.
set -eu
export BALENA_API_URL="${BALENA_API_URL:-https://api.balena-cloud.com}"
export INJECTOR_TEMPLATES="dotenv:${SECRETS:=/secrets}/app.env"
injector run &
trap 'kill $!; wait' EXIT
injector wait
set -a
. "$SECRETS/app.env"
curl -fsS -H "Authorization: Bearer $BALENA_TOKEN" "$BALENA_API_URL/actor/v1/whoami"
