package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger hands Raft's log lines to slog.
func raftLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Debug})
	l.RegisterSink(sink{log.With("part", "raft")})
	return l
}

type sink struct{ log *slog.Logger }

// unreachable are the errors that Raft repeats many times a second while a
// peer is down; the cluster's status says it once.
var unreachable = map[string]bool{
	"failed to heartbeat to": true, "failed to appendEntries to": true, "failed to pipeline appendEntries": true,
	"failed to make requestVote RPC": true, "failed to make prevote RPC": true, "failed to decode incoming command": true,
	"failed to flush response": true,
}

// Accept implements hclog.SinkAdapter. Raft says at Info and Warn what an
// operator need not see at each election, so everything goes one level down.
func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Warn:
		if to = slog.LevelInfo; msg == "failed to contact" || msg == "rejecting vote request since we have a leader" {
			to = slog.LevelDebug
		}
	case hclog.Error:
		if to = slog.LevelWarn; unreachable[msg] {
			to = slog.LevelDebug
		}
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(f[0].(string), f[1:]...)
		}
	}
	s.log.Log(context.Background(), to, msg, args...)
}

// lineWriter hands memberlist's log lines to slog; they begin with
// "[LEVEL] memberlist: ".
type lineWriter struct{ log *slog.Logger }

func (w lineWriter) Write(p []byte) (int, error) {
	level, msg := slog.LevelDebug, bytes.TrimSpace(p)
	if bytes.HasPrefix(msg, []byte("[ERR")) {
		level = slog.LevelInfo // gossip is a hint: none of its errors needs a person
	}
	if _, rest, ok := bytes.Cut(msg, []byte("memberlist: ")); ok {
		msg = rest
	}
	w.log.Log(context.Background(), level, "gossip: "+string(msg))
	return len(p), nil
}
