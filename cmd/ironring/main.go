// Command ironring is everything but the agent: the daemon of a peer (serve)
// and the command line that talks to peers. The commands are in internal/cli.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/ironring/ironring/cmd/ironring/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The second signal finds its default action again and ends the process.
	context.AfterFunc(ctx, stop)
	return cli.Main(ctx, cli.System(), os.Args[1:])
}
