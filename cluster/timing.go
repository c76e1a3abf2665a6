package cluster

import (
	"math"
	"strings"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// DefaultTiming is the profile "default": takeover within 16 s, on networks
// and disks that stall for seconds now and then.
func DefaultTiming() *api.Timing {
	return &api.Timing{
		LeaseMs: 12_000, HolderMs: 8_000, RenewMs: 2_000, RpcMs: 1_000, MarginMs: 2_000,
		GuardMs: 5_000, ElectionMs: 3_000, SettleMs: 2_000, TcpUserMs: 5_000, BmcEffectMs: 5_000,
	}
}

// LANTiming is the profile "lan": takeover within 10 s, for peers on one
// quick network.
func LANTiming() *api.Timing {
	return &api.Timing{
		LeaseMs: 7_000, HolderMs: 5_000, RenewMs: 1_000, RpcMs: 500, MarginMs: 2_000,
		GuardMs: 3_000, ElectionMs: 1_500, SettleMs: 2_000, TcpUserMs: 5_000, BmcEffectMs: 5_000,
	}
}

// DefaultSettings are those of a new cluster.
func DefaultSettings() *api.Settings {
	return &api.Settings{
		Timing: DefaultTiming(), MaxVoters: 3, RingVersion: 1,
		IdleMoveMs: 60_000, JoinStableMs: 30_000,
		BootStallMs: 90_000, BootDeadlineMs: 30 * 60_000, BootTries: 3,
	}
}

// Rates of two clocks differ by at most rho = 1 %: 99 and 101 of 100. A
// killed process is gone after killMs.
const killMs = 200

// CheckTiming checks conditions C1 to C4 of the lease protocol in integer
// milliseconds: with rho = 1 %, D/(1-rho) < L/(1+rho) is 101*D < 99*L.
func CheckTiming(t *api.Timing) error {
	if t == nil {
		return errs.About(errs.Invalid, "timing", "no timing given")
	}
	for name, v := range map[string]uint64{
		"lease_ms": t.LeaseMs, "holder_ms": t.HolderMs, "renew_ms": t.RenewMs, "rpc_ms": t.RpcMs,
		"guard_ms": t.GuardMs, "election_ms": t.ElectionMs, "settle_ms": t.SettleMs,
		"tcp_user_ms": t.TcpUserMs, "bmc_effect_ms": t.BmcEffectMs, "margin_ms": t.MarginMs,
	} {
		if v == 0 || v > 24*60*60*1000 {
			return errs.About(errs.Invalid, "timing."+name, "timing: %s is %d, allowed are 1 ms to a day", name, v)
		}
	}
	const lo, hi = 99, 101 // percent
	// All sides below are multiplied by lo*hi.
	holder := t.HolderMs * 100 * hi // D/(1-rho)
	lease := t.LeaseMs * 100 * lo   // L/(1+rho)
	if holder >= lease {
		return errs.About(errs.Invalid, "timing", "timing: a holder could outlive its lease (C1): holder_ms %d is too long for lease_ms %d", t.HolderMs, t.LeaseMs)
	}
	guard := t.GuardMs*lo*hi*hi/100 + killMs*lo*hi // W(1+rho) + tau
	if holder+guard > lease+t.SettleMs*lo*hi {
		return errs.About(errs.Invalid, "timing", "timing: a paused holder could outlive its lease (C2): holder_ms %d and guard_ms %d are too long for lease_ms %d and settle_ms %d", t.HolderMs, t.GuardMs, t.LeaseMs, t.SettleMs)
	}
	// C3: the wait after a fence with an open intent is settle_ms + Q, and
	// Q = tcp_user_ms + bmc_effect_ms is how long a sent request may act: both
	// sides of C2 grow by the same amount, so C2 implies it.
	if t.RenewMs+t.RpcMs+t.ElectionMs+t.MarginMs > t.HolderMs {
		return errs.About(errs.Invalid, "timing", "timing: an election would stop the work (C4): renew_ms, rpc_ms, election_ms and margin_ms add up to %d, more than holder_ms %d", t.RenewMs+t.RpcMs+t.ElectionMs+t.MarginMs, t.HolderMs)
	}
	return nil
}

// CheckSettings checks cluster-wide settings before they are proposed.
func CheckSettings(s *api.Settings) error {
	if s == nil {
		return errs.About(errs.Invalid, "settings", "no settings given")
	}
	if err := CheckTiming(s.GetTiming()); err != nil {
		return err
	}
	if v := s.GetMaxVoters(); v != 1 && v != 3 && v != 5 {
		return errs.About(errs.Invalid, "max_voters", "max_voters is %d: 3 and 5 make sense (1 in tests)", v)
	}
	for _, d := range []struct {
		name     string
		ms       uint64
		low, top time.Duration
	}{
		{"idle_move_ms", s.GetIdleMoveMs(), 100 * time.Millisecond, 24 * time.Hour},
		{"join_stable_ms", s.GetJoinStableMs(), time.Millisecond, 24 * time.Hour},
		{"boot_stall_ms", s.GetBootStallMs(), 100 * time.Millisecond, 24 * time.Hour},
		{"boot_deadline_ms", s.GetBootDeadlineMs(), 100 * time.Millisecond, 24 * time.Hour},
	} {
		if is := time.Duration(min(d.ms, math.MaxInt64/1_000_000)) * time.Millisecond; is < d.low || is > d.top {
			return errs.About(errs.Invalid, d.name, "%s is %v, allowed are %v to %v", strings.TrimSuffix(d.name, "_ms"), is, d.low, d.top)
		}
	}
	if s.GetBootStallMs() > s.GetBootDeadlineMs() {
		return errs.About(errs.Invalid, "boot_stall_ms", "boot_stall is longer than boot_deadline: no boot would ever be tried again")
	}
	if n := s.GetBootTries(); n < 1 || n > 20 {
		return errs.About(errs.Invalid, "boot_tries", "boot_tries is %d, allowed are 1 to 20", n)
	}
	if v := s.GetImageDownloadSource(); v != "" && v != "http" && v != "local" {
		return errs.About(errs.Invalid, "image_download_source", "image_download_source %q is not http or local", v)
	}
	if v := s.GetRingVersion(); v != 1 {
		return errs.About(errs.Unsupported, "ring_version", "ring_version %d is not known, only 1", v)
	}
	return nil
}
