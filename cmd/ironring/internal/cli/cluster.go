package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

func newClusterCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Look after the peers",
		Example: `  ironring cluster status
  ironring cluster token > /root/token        # on a member
  ironring cluster join --config /etc/ironring.yaml --token-file /root/token   # on the new peer`,
	}
	cmd.AddCommand(newClusterStatusCmd(f), newClusterTokenCmd(f), newClusterJoinCmd(f), newClusterLeaveCmd(f),
		newClusterRemoveCmd(f), newClusterSettingsCmd(f), newClusterRotateKeysCmd(f))
	return cmd
}

func newClusterStatusCmd(f *Factory) *cobra.Command {
	req := &api.ClusterStatusRequest{}
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show peers, leader, voters and what would cost the quorum",
		Long: `Show the peers, who leads, who votes, how nodes and locks are shared out, and
which loss would cost the quorum next.

Exit code 0: healthy; 1: degraded; 2: no quorum.`,
		Example: "  ironring cluster status || echo something is wrong",
		Args:    cobra.NoArgs,
		RunE: f.with(func(ctx context.Context, c *client.Client, _ []string) error {
			rep, err := c.ClusterStatus(ctx, req)
			if err != nil {
				return err
			}
			if watch && !f.json() && f.color(f.Out) {
				fmt.Fprint(f.Out, "\x1b[H\x1b[2J") // now: what was shown stays until there is something newer
			}
			if err := f.print(rep, func() error { return f.status(rep) }); err != nil {
				return err
			}
			return healthStatus(rep)
		}),
	}
	once := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if watch {
			return f.watchStatus(cmd.Context(), every, func() error { return once(cmd, args) })
		}
		return once(cmd, args)
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again and again, until interrupted")
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "how often, with --watch")
	cmd.Flags().BoolVar(&req.Local, "local", false, "only what the answering peer knows, without asking others")
	return cmd
}

func healthStatus(rep *api.ClusterStatusReply) error {
	switch rep.GetHealth() {
	case api.ClusterStatusReply_HEALTHY:
		return nil
	case api.ClusterStatusReply_NO_QUORUM:
		return exitStatus(2)
	}
	return exitStatus(1)
}

// watchStatus shows the status until ctx ends. That no peer answers now is
// said below the last status, on standard error where standard output is JSON,
// and does not end it.
func (f *Factory) watchStatus(ctx context.Context, every time.Duration, show func() error) error {
	if every < 100*time.Millisecond {
		return errs.About(errs.Invalid, "every", "--every %s: must be at least 100ms", every)
	}
	notes := f.Out
	if f.json() {
		notes = f.Err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := show()
		var own exitStatus
		if err != nil && !errors.As(err, &own) && ctx.Err() == nil {
			if errs.KindOf(err) == errs.Invalid {
				return err
			}
			fmt.Fprintln(notes, "no status:", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if !f.json() && !f.color(f.Out) {
			fmt.Fprintln(f.Out)
		}
	}
}

var healthCells = map[api.ClusterStatusReply_Health]cell{
	api.ClusterStatusReply_HEALTHY:   {"healthy", green},
	api.ClusterStatusReply_DEGRADED:  {"degraded", yellow},
	api.ClusterStatusReply_NO_QUORUM: {"no quorum", red},
}

func (f *Factory) status(r *api.ClusterStatusReply) error {
	head := &table{}
	health, ok := healthCells[r.GetHealth()]
	if !ok {
		health = cell{"unknown", red}
	}
	head.add("health", health)
	head.add("cluster", r.GetClusterId())
	leader := "none"
	if r.GetLeader() != "" {
		leader = fmt.Sprintf("%s, term %d, index %d", r.GetLeader(), r.GetTerm(), r.GetIndex())
	}
	head.add("leader", leader)
	head.add("nodes", nodesText(r))
	for _, p := range r.GetProblems() {
		head.add("problem", cell{p, red})
	}
	for _, n := range r.GetNotes() {
		head.add("note", n)
	}
	if s := r.GetNextFailure(); s != "" {
		head.add("next", s)
	}
	head.add("as seen by", r.GetAnsweredBy())
	if err := f.printTable(head); err != nil {
		return err
	}
	fmt.Fprintln(f.Out)
	t := newTable("PEER", "ROLE", "ALIVE", "PHASE", "LEASE", "NODES", "LOCKS", "SHARE", "LAG", "ZONE", "VERSION", "API")
	for _, p := range r.GetPeers() {
		m := p.GetMember()
		alive := cell{"yes", green}
		if !p.GetAlive() {
			alive = cell{"no", red}
		}
		lag := "unknown"
		if p.GetAppliedIndex() > 0 || p.GetLeader() {
			lag = fmt.Sprint(p.GetLag())
		}
		t.add(m.GetId(), roleText(p), alive, strings.ToLower(m.GetPhase().String()), p.GetLease(), p.GetNodes(), p.GetLocks(),
			fmt.Sprintf("%.0f %%", p.GetRingShare()*100), lag, m.GetZone(), m.GetVersion(), m.GetApiAddress())
	}
	return f.printTable(t)
}

func roleText(p *api.PeerStatus) string {
	switch {
	case p.GetLeader():
		return "leader"
	case p.GetVoter():
		return "voter"
	}
	return "non-voter"
}

// nodesText counts nodes by state, in the order of the lifecycle.
func nodesText(r *api.ClusterStatusReply) string {
	s := fmt.Sprint(r.GetNodes())
	var parts []string
	for _, st := range node.States() {
		if c := r.GetNodesByState()[node.StateName(st)]; c > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c, node.StateName(st)))
		}
	}
	if len(parts) > 0 {
		s += ": " + strings.Join(parts, ", ")
	}
	if u := r.GetUnassigned(); u > 0 {
		s += fmt.Sprintf("; %d without owner", u)
	}
	return s
}

func newClusterTokenCmd(f *Factory) *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token that lets one new peer join",
		Long: `Make a token that lets one new peer join. It is printed once, on standard
output and nothing else with it, and is a secret: keep it in a file that only
root can read, or pipe it.`,
		Example: "  ironring cluster token --ttl 10m | ssh p2 ironring cluster join --config /etc/ironring.yaml --token-file -",
		Args:    cobra.NoArgs,
		RunE: f.with(func(ctx context.Context, c *client.Client, _ []string) error {
			if ttl < time.Second {
				return errs.About(errs.Invalid, "ttl", "--ttl %s: must be at least 1s", ttl)
			}
			rep, err := c.CreateJoinToken(ctx, &api.CreateJoinTokenRequest{TtlSeconds: uint64(ttl.Seconds())})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				fmt.Fprintf(f.Err, "valid for %s, for one peer\n", f.left(rep.GetExpiresMs()))
				_, err := fmt.Fprintln(f.Out, rep.GetToken())
				return err
			})
		}),
	}
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is valid")
	return cmd
}

func newClusterLeaveCmd(f *Factory) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "leave PEER",
		Short: "Take a peer out of the cluster for good",
		Long: `Take a peer out of the cluster for good. Ask the peer itself, or any peer when
the one that leaves is dead. Its nodes go to others, who also get new keys; it
can only come back with an empty data directory and a new token. To restart a
peer just stop it.`,
		Example: "  ironring cluster leave p3 --yes",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			if err := f.confirmDeparture(args[0], yes); err != nil {
				return err
			}
			rep, err := c.Leave(ctx, &api.LeaveRequest{Member: args[0]})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				return f.departed(args[0], "has left", rep)
			})
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it without asking")
	return cmd
}

// confirmDeparture has the person at the terminal type the name of a peer that
// is about to be taken out. Nothing has been done when it returns an error.
func (f *Factory) confirmDeparture(peer string, yes bool) error {
	if yes {
		return nil
	}
	if !f.interactive() {
		return errs.New(errs.Invalid, "this takes %s out of the cluster for good, and nobody can be asked here (standard input is no terminal): give --yes to do it", peer)
	}
	fmt.Fprintf(f.Err, "this takes peer %s out of the cluster for good\n", peer)
	got, err := f.ask(fmt.Sprintf("Type the peer's name, %s, to go on: ", peer))
	if err == nil && got != peer {
		err = errs.New(errs.Invalid, "%q is not %s; nothing was done", oneLine(got), peer)
	}
	return err
}

// departed says who is gone, and what is to be done now.
func (f *Factory) departed(peer, how string, rep *api.WriteReply) error {
	for _, n := range rep.GetNotes() {
		fmt.Fprintln(f.Err, "note:", n)
	}
	_, err := fmt.Fprintf(f.Out, "peer %s %s\n", peer, how)
	return err
}
