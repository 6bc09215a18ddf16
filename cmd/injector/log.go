package main

import (
	"io"
	"log/slog"

	"github.com/balena-injector/injector/internal/words"
)

// newLog returns a log for people or for programs. Durations are text in both.
func newLog(w io.Writer, level slog.Level, asJSON bool) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.StringValue(words.Short(a.Value.Duration()))
		}
		return a
	}}
	if asJSON {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
