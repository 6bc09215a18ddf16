#!/bin/sh
# Something has to be done when another key takes over; what, a command knows. It has the generation and
# the expiry in its environment, and reads the token where the app does.
set -eu
export INJECTOR_OUTPUT="${SECRETS:=/secrets}/balena-token"
export INJECTOR_NOTIFY_COMMAND="[\"sh\",\"-c\",\"echo generation \$TOKEN_GENERATION > $SECRETS/told\"]" INJECTOR_NOTIFY_FIRST=true
injector run &
trap 'kill $!; wait' EXIT
until [ -s "$SECRETS/told" ]; do sleep 0.1; done
cat "$SECRETS/told"
