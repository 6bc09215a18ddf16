#!/bin/sh
# The app wants the token in a variable of another name, here the Terraform provider's.
set -eu
export BALENA_API_URL="${BALENA_API_URL:-https://api.balena-cloud.com}"
export INJECTOR_TOKEN_VARIABLES=BALENA_API_TOKEN
exec injector exec -- sh -c 'curl -fsS -H "Authorization: Bearer $BALENA_API_TOKEN" "$BALENA_API_URL/actor/v1/whoami"'
