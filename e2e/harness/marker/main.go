// Command marker is the init, and all there is, of the test image: it says on
// the console that it runs and with which marker, tells what its BMC says
// through the in-band interface and the first line of the user data on its
// config drive, if it has one, and stays until the power goes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/types"
	"golang.org/x/sys/unix"
)

func main() {
	for _, m := range [][2]string{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		// devtmpfs may be mounted by the kernel already.
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			fmt.Println("mount", m[1], err)
		}
	}
	fmt.Printf("\nIRONRING-BOOTED marker=%s\n", value("marker"))
	if err := loadModules(); err != nil {
		fmt.Printf("IRONRING-MODULES error=%q\n", err)
	}
	go configDrive()
	if value("bmc") != "no" {
		if err := inBand(); err != nil {
			fmt.Printf("IRONRING-BMC error=%q\n", err)
		}
	}
	fmt.Println("IRONRING-READY")
	select {}
}

// value is that of key=value on the kernel line.
func value(key string) string {
	b, _ := os.ReadFile("/proc/cmdline")
	for _, f := range strings.Fields(string(b)) {
		if v, ok := strings.CutPrefix(f, key+"="); ok {
			return v
		}
	}
	return ""
}

// inBand asks the BMC over the system interface who it is.
func inBand() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.NewOpenClient()
	if err != nil {
		return err
	}
	if err := c.Connect(ctx); err != nil {
		return err
	}
	var ip types.LanConfigParam_IP
	if err := c.GetLanConfigParamFor(ctx, 1, &ip); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	var mac types.LanConfigParam_MAC
	if err := c.GetLanConfigParamFor(ctx, 1, &mac); err != nil {
		return fmt.Errorf("mac: %w", err)
	}
	fmt.Printf("IRONRING-BMC ip=%s mac=%s\n", ip.IP, mac.MAC)
	return nil
}

func loadModules() error {
	list, err := os.ReadFile("/etc/modules")
	if err != nil {
		return err
	}
	for _, file := range strings.Fields(string(list)) {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("module %s: %w", file, err)
		}
	}
	return nil
}
