package fsm

import (
	"bufio"
	"io"
)

// Peek reads the beginning of a snapshot: whether this build can restore it,
// and of which cluster it is ("" before the cluster was founded). It says
// nothing of what follows.
func Peek(from io.Reader) (clusterID string, err error) {
	r := &frameReader{from: bufio.NewReader(from)}
	if err := r.header(); err != nil {
		return "", err
	}
	kind, payload, err := r.next()
	if err != nil {
		return "", err
	}
	if kind != kindHead {
		return "", damaged("it does not begin with the head")
	}
	h, err := decodeHead(payload)
	if err != nil {
		return "", damaged("head: %w", err)
	}
	return h.clusterID, nil
}
