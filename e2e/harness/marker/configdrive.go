package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// configDrive mounts the partition named config-2, as soon as the kernel has
// it, and tells the first line of the user data. Most images have none.
func configDrive() {
	for range 600 {
		if dev := partition("config-2"); dev != "" {
			line, err := userData(dev)
			fmt.Printf("IRONRING-CONFIG user_data=%q error=%v\n", line, err)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// partition is the device of the partition of that name.
func partition(name string) string {
	files, _ := filepath.Glob("/sys/class/block/*/uevent")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if strings.Contains(string(b), "PARTNAME="+name+"\n") {
			return "/dev/" + filepath.Base(filepath.Dir(f))
		}
	}
	return ""
}

func userData(dev string) (string, error) {
	const dir = "/config"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := unix.Mount(dev, dir, "iso9660", unix.MS_RDONLY, ""); err != nil {
		return "", fmt.Errorf("mount %s: %w", dev, err)
	}
	b, err := os.ReadFile(dir + "/openstack/latest/user_data")
	line, _, _ := strings.Cut(string(b), "\n")
	return line, err
}
