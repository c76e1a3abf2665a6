//go:build linux

// Command ironring-agent is /init of the ramdisk: it brings the machine up far
// enough to reach the cluster, and then is the agent.
//
// As the first process it must not end: a panic in any goroutine makes the
// kernel panic, which reboots after 30 s, and an error is printed and does the
// same. Nothing else runs in the ramdisk. Order matters for time: the modules
// of NICs come first, the rest loads while DHCP and enrolment wait for answers.
//
// Everything is printed on all consoles of the kernel line and on the first
// serial port. Start reading at run.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/agent"
	"github.com/ironring/ironring/agent/linuxhw"
	"github.com/ironring/ironring/internal/version"
)

// restartAfter is how long an error stays readable on the console.
const restartAfter = 30 * time.Second

func main() {
	if os.Getpid() != 1 {
		fmt.Printf("ironring-agent %s: the first process of Ironring's ramdisk; it does nothing elsewhere\n", version.String())
		if len(os.Args) == 2 && os.Args[1] == "--version" {
			return
		}
		os.Exit(2)
	}
	mountErr := mountAll()
	// From here on the kernel reboots should this process die.
	_ = os.WriteFile("/proc/sys/kernel/panic", []byte("30"), 0)
	out := openConsoles()
	log := slog.New(newConsoleHandler(out))
	if mountErr != nil {
		log.Error("mount", "err", mountErr)
	}
	go reap()
	err := guarded(log)
	log.Error("the agent ended; the machine restarts in 30 s", "err", err)
	time.Sleep(restartAfter)
	unix.Sync()
	err = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	log.Error("the machine does not restart", "err", err)
	select {}
}

// guarded turns a panic of the main goroutine into an error with its stack.
func guarded(log *slog.Logger) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return run(context.Background(), log)
}

func run(ctx context.Context, log *slog.Logger) error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("kernel line: %w", err)
	}
	line, err := agent.ParseLine(string(cmdline))
	if err != nil {
		return err
	}
	log.Info("started", "version", version.String(), "node", line.Node, "boot_mac", line.BootMAC)

	mods, err := startModules(log)
	if err != nil {
		return err
	}
	if err := network(ctx, line.BootMAC, mods.need, log); err != nil {
		return err
	}
	hw := linuxhw.New(linuxhw.Config{Logger: log, Settle: mods.settle})
	if hw.EFI() != nil {
		mods.need("efivarfs")
		if err := mount("efivarfs", "/sys/firmware/efi/efivars", "efivarfs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, ""); err != nil {
			log.Warn("the firmware's variables are not there", "err", err)
		}
	}
	return agent.Run(ctx, agent.Config{Line: line, Hardware: hw, StateDir: "/run/ironring", Logger: log, Version: version.String()})
}

// reap takes the exit status of orphans, which the kernel hands to the first
// process. Nothing here starts processes, so none is missed by others.
func reap() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGCHLD)
	for range c {
		for {
			var st unix.WaitStatus
			if pid, err := unix.Wait4(-1, &st, unix.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
