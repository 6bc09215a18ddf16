package main

import (
	"io"
	"log/slog"

	"github.com/balena-injector/injector/internal/words"
)

// newLog returns a log for people or for programs. A duration such as took=1m30s is "took_seconds":90 in JSON.
func newLog(w io.Writer, level slog.Level, asJSON bool) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch {
		case a.Value.Kind() != slog.KindDuration:
			return a
		case asJSON:
			return slog.Float64(a.Key+"_seconds", words.InSeconds(a.Value.Duration()))
		}
		return slog.String(a.Key, words.Short(a.Value.Duration()))
	}}
	if asJSON {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
