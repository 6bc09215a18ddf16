#!/bin/sh
# The balena CLI and the Node SDK read the file "token" in their data directory.
set -eu
export BALENA_API_URL="${BALENA_API_URL:-https://api.balena-cloud.com}"
export BALENARC_DATA_DIRECTORY="${SECRETS:=/secrets}/balena" BALENARC_API_URL="$BALENA_API_URL"
export INJECTOR_TEMPLATES="balena-cli:$BALENARC_DATA_DIRECTORY"
injector run &
trap 'kill $!; wait' EXIT
injector wait -- balena whoami
