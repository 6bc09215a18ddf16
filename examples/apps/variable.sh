#!/bin/sh
# The app reads a variable once, at its start, and cannot be changed: the balena Prometheus exporter,
# deploy-to-balena-action. It is restarted when another key takes over, once a day.
set -eu
export BALENA_API_URL="${BALENA_API_URL:-https://api.balena-cloud.com}"
exec injector exec -- sh -c 'curl -fsS -H "Authorization: Bearer $BALENA_TOKEN" "$BALENA_API_URL/actor/v1/whoami"'
