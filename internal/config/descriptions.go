package config

// descriptions say what each variable does, for help and for docs/configuration.md. A test compares them with the fields.
var descriptions = map[string]string{
	"BALENA_API_URL": "the balena API",
	"INJECTOR_KEYS": "names of several keys, such as deploy,fleet; each has variables of its own, INJECTOR_DEPLOY_TTL and " +
		"so on: docs/apps.md",
	"INJECTOR_STATE_DIR":      "directory of the journal, lock and socket",
	"INJECTOR_SESSION_CACHE":  "file that keeps the session over restarts; never where an app can read",
	"INJECTOR_REQUIRE_TMPFS":  "refuse outputs that are not in memory",
	"INJECTOR_TEMPLATE_FILES": "directory of the files that templates may include",
	"INJECTOR_TEMPLATE_ENV":   "names of the variables that templates may read",
	"INJECTOR_ON_ROTATION":    "what exec does to its command when another key takes over: restart, none, or a signal such as HUP",
	"INJECTOR_KILL_AFTER":     "when a command of exec that does not end is ended by force",
	"INJECTOR_INIT_TIMEOUT": "when init, exec and wait give up, after any pause that failed starts cost, and how long to wait for " +
		"another injector to leave the state directory",
	"INJECTOR_SHUTDOWN_DELAY":   "how long the key lives on after a stop; counts towards INJECTOR_SHUTDOWN_TIMEOUT",
	"INJECTOR_SHUTDOWN_TIMEOUT": "how long a stop may take in all, revoking included",
	"INJECTOR_REVOKE_ON_EXIT":   "revoke at the end; false leaves the key to the next start",
	"INJECTOR_LISTEN":           "TCP address for /livez, /readyz and /metrics, such as :22536",
	"INJECTOR_CA_FILE":          "PEM certificates to trust beside the system's",
	"INJECTOR_ALLOW_HTTP":       "allow http:// to other hosts than this one, password and all",
	"INJECTOR_REQUESTS_PER_MINUTE": "how many requests an account sends in a minute at most, over all its keys here, 10 to 10000; " +
		"half of them may come at once",
	"INJECTOR_LOG_LEVEL":      "debug, info, warn or error",
	"INJECTOR_LOG_FORMAT":     "text or json",
	"BALENA_USERNAME":         "user name or e-mail address to log in with; needs a password",
	"INJECTOR_KIND":           "whose key to make: user, fleet or device",
	"INJECTOR_TARGET":         "for a fleet key its slug (org/fleet), uuid or id; for a device key its uuid or id",
	"INJECTOR_NAME":           "prefix of the keys' names in the dashboard",
	"INJECTOR_DESCRIPTION":    "shown beside the keys in the dashboard, up to 150 characters",
	"INJECTOR_TTL":            "how far ahead a key's expiry is set, at least 10s",
	"INJECTOR_MAX_TTL":        "how old a key may get before another replaces it; 0 never",
	"INJECTOR_OVERLAP":        "how long a replaced key lives on, up to a quarter of TTL",
	"INJECTOR_CHECK_INTERVAL": "how often to ask whether the key lives, at least 1s",
	"INJECTOR_OUTPUT":         "the file that the app reads, or none",
	"INJECTOR_OUTPUT_MODE":    "the mode of outputs, octal",
	"INJECTOR_OUTPUT_OWNER":   "the owner of outputs, numeric uid:gid; either may be empty",
	"INJECTOR_TEMPLATES": "further outputs, SOURCE:DESTINATION[:MODE] and a comma between them; SOURCE is a template's file or " +
		"a preset",
	"INJECTOR_TOKEN_VARIABLES": "the variables that exec puts the token into",
	"INJECTOR_NOTIFY_COMMAND":  "command to run after a publication: words with blanks between them, or a JSON list; no shell",
	"INJECTOR_NOTIFY_SIGNAL":   "signal to send after a publication, SIGNAL:PROCESS such as HUP:nginx",
	"INJECTOR_NOTIFY_URL":      "request to send after a publication, [METHOD ]URL; POST by default",
	"INJECTOR_NOTIFY_TIMEOUT":  "how long a notification may take",
	"INJECTOR_NOTIFY_FIRST":    "notify of the first publication after a start, too",
}
