package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestDurationsInTheLog are text for people, and numbers of seconds for programs, with the unit in their names.
func TestDurationsInTheLog(t *testing.T) {
	var text, raw bytes.Buffer
	for _, log := range []*slog.Logger{newLog(&text, slog.LevelInfo, false), newLog(&raw, slog.LevelInfo, true).With("wait", time.Hour)} {
		log.Info("extended the key", "took", 90*time.Second, "next_try_in", 1500*time.Millisecond, "generation", 3)
	}
	if !strings.Contains(text.String(), `msg="extended the key" took=1m30s next_try_in=1.5s generation=3`) {
		t.Error(text.String())
	}
	var line map[string]any
	if err := json.Unmarshal(raw.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	delete(line, "time")
	got, _ := json.Marshal(line)
	want := `{"generation":3,"level":"INFO","msg":"extended the key","next_try_in_seconds":1.5,"took_seconds":90,"wait_seconds":3600}`
	if string(got) != want {
		t.Errorf("%s, not %s", got, want)
	}
}
