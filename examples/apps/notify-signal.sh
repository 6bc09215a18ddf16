#!/bin/sh
# The app rereads its files at SIGHUP. In another container it must share the PID namespace and the user.
set -eu
export INJECTOR_OUTPUT="${SECRETS:=/secrets}/balena-token" INJECTOR_NOTIFY_SIGNAL=HUP:thermostatd INJECTOR_NOTIFY_FIRST=true
printf '%s\n' '#!/bin/sh' "trap 'echo rereading > $SECRETS/told' HUP" "echo > $SECRETS/app-ready" 'while :; do sleep 0.1; done' > "$SECRETS/thermostatd"
chmod +x "$SECRETS/thermostatd"
"$SECRETS/thermostatd" &
app=$!
until [ -e "$SECRETS/app-ready" ]; do sleep 0.1; done # from now on the signal does not end it
injector run &
trap 'kill $! $app; wait' EXIT
until [ -s "$SECRETS/told" ]; do sleep 0.1; done
cat "$SECRETS/told"
