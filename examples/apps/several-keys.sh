#!/bin/sh
# One injector keeps two keys: a user's for deploying, and one that provisions devices into a fleet.
set -eu
export BALENA_API_URL="${BALENA_API_URL:-https://api.balena-cloud.com}"
: "${SECRETS:=/secrets}"
export INJECTOR_KEYS=deploy,provision INJECTOR_DEPLOY_OUTPUT="$SECRETS/deploy" INJECTOR_PROVISION_OUTPUT="$SECRETS/provision"
export INJECTOR_PROVISION_KIND=fleet INJECTOR_PROVISION_TARGET="${FLEET:-acme/thermostat}" INJECTOR_PROVISION_TTL=4h
injector run &
trap 'kill $!; wait' EXIT
injector wait -- sh -c 'for key in "$@"; do curl -fsS -H "Authorization: Bearer $(cat "$key")" "$BALENA_API_URL/actor/v1/whoami"; done' app "$SECRETS/deploy" "$SECRETS/provision"
