package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ironring/ironring/cmd/ironring/internal/daemon"
	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/sim/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	args := strings.Join(os.Args[1:], " ")
	if os.Args[1] == "serve" {
		cfg, err := config.Load(os.Args[3])
		if err != nil {
			fmt.Println(err)
			os.Exit(2)
		}
		o := daemon.Options{Config: cfg, Init: strings.Contains(args, "--init"), Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))}
		if strings.Contains(args, "--join-file") {
			o.JoinToken, _ = bufio.NewReader(os.Stdin).ReadString('\n')
			o.JoinToken = strings.TrimSpace(o.JoinToken)
		}
		if err := daemon.Run(ctx, o); err != nil {
			fmt.Fprintln(os.Stderr, "FATAL", err)
			os.Exit(1)
		}
		return
	}
	var n int
	fmt.Sscan(os.Args[2], &n)
	bin, _ := os.Executable()
	f, _ := os.Create("/tmp/labx/machines.log")
	rep, err := lab.Run(ctx, lab.Options{Peers: 3, Nodes: n, Once: true, Kill: len(os.Args) > 3, Dir: "/tmp/labx", Binary: bin, ImageMiB: 12, ImageRate: 1 << 20, Progress: os.Stdout, Logger: slog.New(slog.NewTextHandler(f, nil))})
	fmt.Println(err)
	if rep != nil {
		rep.Print(os.Stdout)
		json.NewEncoder(os.Stdout).Encode(rep)
	}
}
