//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// setClock asks NTP servers in turn for the time (SNTP, RFC 4330) and sets the
// clock by the first good answer. It is a comfort: the agent takes the time
// from the peers when it enrols, and works without this.
func setClock(ctx context.Context, servers []string, log *slog.Logger) {
	for _, s := range servers {
		offset, err := clockOffset(ctx, net.JoinHostPort(s, "123"), time.Now)
		if err != nil {
			log.Warn("no time from the NTP server", "server", s, "err", err)
			continue
		}
		tv := unix.NsecToTimeval(time.Now().Add(offset).UnixNano())
		if err := unix.Settimeofday(&tv); err != nil {
			log.Warn("the clock is not set", "err", err)
			return
		}
		log.Info("clock set by NTP", "server", s, "offset", offset.Round(time.Millisecond).String())
		return
	}
}

const ntpTimeout = 5 * time.Second

// ntpEpoch is 1900 in Unix seconds; era 1 begins in 2036, and what looks older
// than 1968 belongs to it.
const ntpEpoch = -2208988800

// clockOffset is how far a server's clock is ahead of ours.
func clockOffset(ctx context.Context, addr string, now func() time.Time) (time.Duration, error) {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, ntpTimeout)
	defer cancel()
	conn, err := d.DialContext(ctx, "udp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(ntpTimeout)); err != nil {
		return 0, err
	}
	sent := now()
	var req [48]byte
	req[0] = 4<<3 | 3                                             // version 4, client
	binary.BigEndian.PutUint64(req[40:], uint64(sent.UnixNano())) //nolint:gosec // a mark that the answer repeats
	if _, err := conn.Write(req[:]); err != nil {
		return 0, err
	}
	var rep [128]byte
	n, err := conn.Read(rep[:])
	if err != nil {
		return 0, err
	}
	return readOffset(rep[:n], req[40:48], sent, now())
}

// readOffset reads an answer: mark is what our request carried.
func readOffset(b, mark []byte, sent, got time.Time) (time.Duration, error) {
	switch {
	case len(b) < 48 || b[0]&7 != 4:
		return 0, errors.New("the answer is no NTP server's")
	case string(b[24:32]) != string(mark):
		return 0, errors.New("the answer is to another request")
	case b[1] == 0 || b[1] > 15 || b[0]>>6 == 3:
		return 0, fmt.Errorf("the server has no time itself (stratum %d)", b[1])
	}
	theirs := ntpTime(b[40:48])
	ours := sent.Add(got.Sub(sent) / 2)
	return theirs.Sub(ours), nil
}

func ntpTime(b []byte) time.Time {
	sec := int64(binary.BigEndian.Uint32(b)) + ntpEpoch
	if sec < 0 {
		sec += 1 << 32
	}
	frac := int64(binary.BigEndian.Uint32(b[4:])) * 1e9 >> 32
	return time.Unix(sec, frac)
}
