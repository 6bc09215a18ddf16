#!/bin/sh
# The app has a configuration file of its own form.
set -eu
export REGION=eu INJECTOR_TEMPLATE_ENV=REGION
export INJECTOR_TEMPLATES="$(cd "$(dirname "$0")" && pwd)/app.conf.tmpl:${SECRETS:=/secrets}/app.conf:0400"
injector run &
trap 'kill $!; wait' EXIT
injector wait
curl -fsS -H "Authorization: Bearer $(sed -n 's/^token = //p' "$SECRETS/app.conf")" "$(sed -n 's/^url = //p' "$SECRETS/app.conf")/actor/v1/whoami"
