#!/bin/sh
# The app is told by an HTTP request. Generation, name and expiry are in it, never the token.
set -eu
export INJECTOR_OUTPUT="${SECRETS:=/secrets}/balena-token" INJECTOR_NOTIFY_FIRST=true
python3 -c '
import http.server, sys
class App(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.send_response(204)
        self.end_headers()
        print(self.command, self.path, body, file=open(sys.argv[1], "w"))
    def log_message(self, *_): pass
app = http.server.HTTPServer(("127.0.0.1", 0), App)
print(app.server_port, file=open(sys.argv[2], "w"))
app.serve_forever()
' "$SECRETS/told" "$SECRETS/port" &
app=$!
until [ -s "$SECRETS/port" ]; do sleep 0.1; done # any free one
export INJECTOR_NOTIFY_URL="PUT http://127.0.0.1:$(cat "$SECRETS/port")/-/reload"
injector run &
trap 'kill $! $app; wait' EXIT
until [ -s "$SECRETS/told" ]; do sleep 0.1; done
cat "$SECRETS/told"
