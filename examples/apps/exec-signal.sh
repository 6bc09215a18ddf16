#!/bin/sh
# The app is a child of exec and rereads its file at SIGHUP: it lives on when another key takes over.
set -eu
export BALENA_API_URL="${BALENA_API_URL:-https://api.balena-cloud.com}"
export INJECTOR_OUTPUT="${SECRETS:=/secrets}/balena-token" INJECTOR_ON_ROTATION=HUP
export INJECTOR_TTL=10s INJECTOR_MAX_TTL=10s # for this example only, which must not take a day
exec injector exec -- sh -euc '
use() { curl -fsS -H "Authorization: Bearer $(cat "$1")" "$BALENA_API_URL/actor/v1/whoami"; }
first=$(cat "$1")
trap "use \"\$1\"; [ \"\$(cat \"\$1\")\" != \"\$first\" ] && echo another token; exit" HUP
use "$1"
while :; do sleep 0.1; done
' sh "$INJECTOR_OUTPUT"
