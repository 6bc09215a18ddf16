#!/bin/sh
# The Python SDK reads ~/.balena/balena.cfg at each request. (Here its own way of reading, without it.)
set -eu
export BALENA_API_URL="${BALENA_API_URL:-https://api.balena-cloud.com}"
HOME="${SECRETS:=/secrets}/home"
mkdir -p "$HOME"
export HOME INJECTOR_TEMPLATES="balena-python:$HOME/.balena"
injector run &
trap 'kill $!; wait' EXIT
injector wait -- python3 -c '
import configparser, os, pathlib, urllib.request
config = configparser.ConfigParser()
config.read(pathlib.Path.home() / ".balena" / "balena.cfg")
token = config.get("Settings", "token")
request = urllib.request.Request(os.environ["BALENA_API_URL"] + "/actor/v1/whoami", headers={"Authorization": "Bearer " + token})
print(urllib.request.urlopen(request).read().decode())
'
