package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
)

// defaultSocket is where a peer of this host is looked for when nothing else
// was said.
const defaultSocket = "/var/lib/ironring/ironring.sock"

// Factory is what commands need of the process. It is used by one command at
// a time.
type Factory struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Now      func() time.Time
	// Asked answers questions in the place of a person at the terminal; nil
	// outside of tests.
	Asked func(question string) string

	// Global flags, set by root.go.
	servers       []string
	socket        string
	ca, cert, key string
	output        string
	timeout       time.Duration
	timeoutGiven  bool
	noColor       bool
}

// System is the Factory of this process.
func System() *Factory {
	return &Factory{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Now: time.Now}
}

// addresses are the peers to talk to: flags, else the environment, else the
// socket of a peer on this host.
func (f *Factory) addresses() ([]string, error) {
	var out []string
	if f.socket != "" {
		out = append(out, "unix:"+f.socket)
	}
	out = append(out, f.servers...)
	if len(out) == 0 {
		if s := f.Getenv("IRONRING_SOCKET"); s != "" {
			out = append(out, "unix:"+s)
		}
		for a := range strings.SplitSeq(f.Getenv("IRONRING_SERVER"), ",") {
			if a = strings.TrimSpace(a); a != "" {
				out = append(out, a)
			}
		}
	}
	if len(out) == 0 {
		if _, err := os.Stat(defaultSocket); err != nil {
			return nil, errs.New(errs.Invalid, "no peer to talk to: give --server HOST:PORT or --socket PATH, or set IRONRING_SERVER (there is no %s)", defaultSocket)
		}
		out = append(out, "unix:"+defaultSocket)
	}
	return out, nil
}

// client connects to the cluster; the caller closes it.
func (f *Factory) client() (*client.Client, error) {
	addresses, err := f.addresses()
	if err != nil {
		return nil, err
	}
	cfg := client.Config{Addresses: addresses, Timeout: f.timeout}
	ca, cert, key := f.or(f.ca, "IRONRING_CA"), f.or(f.cert, "IRONRING_CERT"), f.or(f.key, "IRONRING_KEY")
	switch missing := missingFlags(ca, cert, key); {
	case len(missing) == 3:
		if remote := firstRemote(addresses); remote != "" {
			return nil, errs.New(errs.Invalid, "%s is reached by TLS: give --ca, --cert and --key, or set IRONRING_CA, IRONRING_CERT and IRONRING_KEY (`ironring client-cert create` on a peer makes the files)", remote)
		}
	case len(missing) > 0:
		return nil, errs.New(errs.Invalid, "%s: not given, but both sides show a certificate: --ca, --cert and --key (or IRONRING_CA, IRONRING_CERT and IRONRING_KEY) are needed together (`ironring client-cert create` on a peer makes the files)", strings.Join(missing, ", "))
	default:
		if cfg.TLS, err = client.LoadTLS(ca, cert, key); err != nil {
			return nil, err
		}
	}
	if !f.json() {
		told := map[string]bool{}
		cfg.OnSwitch = func(from, to string, why error) {
			if !told[from] {
				fmt.Fprintf(f.Err, "%v; asking %s\n", why, to)
			}
			told[from] = true
		}
	}
	return client.New(cfg)
}

// missingFlags are those of the flags for TLS that have no value.
func missingFlags(ca, cert, key string) (out []string) {
	for _, c := range []struct{ flag, value string }{{"--ca", ca}, {"--cert", cert}, {"--key", key}} {
		if c.value == "" {
			out = append(out, c.flag)
		}
	}
	return out
}

func firstRemote(addresses []string) string {
	for _, a := range addresses {
		if !strings.HasPrefix(a, "unix:") {
			return a
		}
	}
	return ""
}

func (f *Factory) or(value, env string) string {
	if value != "" {
		return value
	}
	return f.Getenv(env)
}

// with runs a command that needs a client.
func (f *Factory) with(run func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := f.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return run(cmd.Context(), c, args)
	}
}

// waitContext bounds a wait by --timeout only when the flag was given: work
// on a machine takes as long as it takes.
func (f *Factory) waitContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if f.timeoutGiven {
		return context.WithTimeout(ctx, f.timeout)
	}
	return context.WithCancel(ctx)
}

// overdue says in words that a wait ended by --timeout.
func (f *Factory) overdue(ctx context.Context, err error) error {
	if f.timeoutGiven && errors.Is(err, context.DeadlineExceeded) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errs.New(errs.Timeout, "no end of it in %s (--timeout)", f.timeout)
	}
	return err
}

func (f *Factory) json() bool { return f.output == "json" }

// terminal reports whether a stream is one that a person looks at. Only a
// terminal has a size: /dev/null is a character device too.
func terminal(w any) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return false
	}
	is := false
	err = conn.Control(func(fd uintptr) {
		_, err := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ)
		is = err == nil
	})
	return err == nil && is
}

// color reports whether a stream takes colors.
func (f *Factory) color(w io.Writer) bool {
	return !f.noColor && f.Getenv("NO_COLOR") == "" && f.Getenv("TERM") != "dumb" && terminal(w)
}
