package cli

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
)

// setting is one value that all peers share and that may be changed.
type setting struct {
	key  string
	help string
	// One of these says where it is kept.
	field func(*api.Settings) *uint64 // milliseconds
	count func(*api.Settings) *uint32
	word  func(*api.Settings) *string // the first of words where empty
	words []string
}

var settingKeys = []setting{
	{key: "max_voters", help: "how many peers vote, 3 or 5; the others only listen", count: func(s *api.Settings) *uint32 { return &s.MaxVoters }},
	{key: "idle_move", help: "how long the idle nodes of a lost peer wait for it before they move", field: func(s *api.Settings) *uint64 { return &s.IdleMoveMs }},
	{key: "join_stable", help: "how long a peer must have been ready before nodes move to it", field: func(s *api.Settings) *uint64 { return &s.JoinStableMs }},
	{key: "boot_stall", help: "a machine that shows no sign of booting for so long is switched off and on", field: func(s *api.Settings) *uint64 { return &s.BootStallMs }},
	{key: "boot_deadline", help: "the longest that one boot may take", field: func(s *api.Settings) *uint64 { return &s.BootDeadlineMs }},
	{key: "boot_tries", help: "how often a machine is booted before its step fails", count: func(s *api.Settings) *uint32 { return &s.BootTries }},
	{key: "image_download_source", help: "where agents get images unless a node or deploy says otherwise: http (the URL itself) or local (a copy at the peers)", word: func(s *api.Settings) *string { return &s.ImageDownloadSource }, words: []string{"http", "local"}},
}

func (k setting) text(s *api.Settings) string {
	switch {
	case k.count != nil:
		return strconv.Itoa(int(*k.count(s)))
	case k.word != nil:
		return cmp.Or(*k.word(s), k.words[0])
	}
	return (time.Duration(*k.field(s)) * time.Millisecond).String()
}

// set reads "KEY=VALUE" into settings.
func (k setting) set(s *api.Settings, text string) error {
	if k.count != nil {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return errs.About(errs.Invalid, k.key, "%s=%s: not a number", k.key, text)
		}
		*k.count(s) = uint32(n)
		return nil
	}
	if k.word != nil {
		if !slices.Contains(k.words, text) {
			return errs.About(errs.Invalid, k.key, "%s=%s: not one of %s", k.key, text, strings.Join(k.words, ", "))
		}
		*k.word(s) = text
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Millisecond || d > math.MaxInt32*time.Second {
		return errs.About(errs.Invalid, k.key, "%s=%s: not a duration such as 90s or 5m", k.key, text)
	}
	*k.field(s) = uint64(d.Milliseconds())
	return nil
}

func findSetting(key string) (setting, error) {
	var names []string
	for _, k := range settingKeys {
		if k.key == key {
			return k, nil
		}
		names = append(names, k.key)
	}
	return setting{}, errs.About(errs.Invalid, key, "there is no setting %q that can be changed; there are %s", key, strings.Join(names, ", "))
}

func newClusterSettingsCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "settings",
		Short:   "Show and change what all peers share",
		Example: "  ironring cluster settings show\n  ironring cluster settings set max_voters=5",
	}
	cmd.AddCommand(newClusterSettingsShowCmd(f), newClusterSettingsSetCmd(f))
	return cmd
}

func newClusterSettingsShowCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "Show the cluster's settings",
		Example: "  ironring cluster settings show -o json",
		Args:    cobra.NoArgs,
		RunE: f.with(func(ctx context.Context, c *client.Client, _ []string) error {
			rep, err := c.GetSettings(ctx, &api.GetSettingsRequest{})
			if err != nil {
				return err
			}
			return f.print(rep, func() error { return f.settings(rep.GetSettings()) })
		}),
	}
}

func (f *Factory) settings(s *api.Settings) error {
	t := newTable("SETTING", "VALUE", "")
	for _, k := range settingKeys {
		t.add(k.key, k.text(s), k.help)
	}
	timing := s.GetTiming()
	ms := func(n uint64) string { return (time.Duration(n) * time.Millisecond).String() }
	t.add("timing.lease", ms(timing.GetLeaseMs()), "settled when the cluster was founded: a lease's length")
	t.add("timing.holder", ms(timing.GetHolderMs()), "settled: how long its holder trusts it")
	t.add("timing.settle", ms(timing.GetSettleMs()), "settled: what is waited after it")
	return f.printTable(t)
}

func newClusterSettingsSetCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "set KEY=VALUE...",
		Short: "Change the cluster's settings",
		Long: `Change settings that all peers share, at once and on all of them. What is not
named stays. Times are durations such as 90s or 5m.`,
		Example: "  ironring cluster settings set max_voters=5 idle_move=2m",
		Args:    cobra.MinimumNArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			rep, err := c.GetSettings(ctx, &api.GetSettingsRequest{Read: &api.ReadOptions{Linearizable: true}})
			if err != nil {
				return err
			}
			s := rep.GetSettings()
			for _, arg := range args {
				key, value, ok := strings.Cut(arg, "=")
				if !ok {
					return errs.New(errs.Invalid, "%q is not KEY=VALUE", arg)
				}
				k, err := findSetting(key)
				if err != nil {
					return err
				}
				if err := k.set(s, value); err != nil {
					return err
				}
			}
			if rep, err = c.SetSettings(ctx, &api.SetSettingsRequest{Settings: s}); err != nil {
				return err
			}
			return f.print(rep, func() error { return f.settings(rep.GetSettings()) })
		}),
	}
}

func newClusterRemoveCmd(f *Factory) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove PEER",
		Short: "Take a dead peer out of the cluster for good",
		Long: `Take a peer that is dead out of the cluster for good, through any other one.
Its certificate is refused from then on, the others get new keys, and its nodes
go to them. Should it start again, it says so and ends with exit code 13. A
shared key (key_file) that it had is spent: nobody joins by it any more, and
members take in peers again once key_file holds another key. A peer that is
alive leaves by itself: "cluster leave".`,
		Example: "  ironring cluster remove p3 --yes",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			who, err := c.Version(ctx, nil)
			if err != nil {
				return err
			}
			if who.GetPeer() == args[0] {
				return errs.New(errs.WrongState, "peer %s is alive, it has just answered: it leaves with `ironring cluster leave %s`", args[0], args[0])
			}
			if err := f.confirmDeparture(args[0], yes); err != nil {
				return err
			}
			rep, err := c.Leave(ctx, &api.LeaveRequest{Member: args[0]})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				return f.departed(args[0], "is removed", rep)
			})
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it without asking")
	return cmd
}

func newClusterRotateKeysCmd(f *Factory) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "rotate-keys",
		Short: "Have the leader make new keys for secrets and gossip",
		Long: `Have the leader make a new data key and a new gossip key, as it does by itself
when a peer leaves or is removed. Secrets are brought under the new key in the
background; "cluster status" shows how far that is. The CA's key stays.`,
		Example: "  ironring cluster rotate-keys --reason 'yearly'",
		Args:    cobra.NoArgs,
		RunE: f.with(func(ctx context.Context, c *client.Client, _ []string) error {
			rep, err := c.RotateKeys(ctx, &api.RotateKeysRequest{Reason: reason})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				_, err := fmt.Fprintln(f.Out, "new keys are being made")
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}
