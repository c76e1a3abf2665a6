package cluster

import (
	"os"
	"strings"

	"github.com/ironring/ironring/internal/errs"
)

// HostIDs are what tells one machine and one boot of it from another: the
// lease protocol compares both. A host without a machine id (a container) is
// known by its boot id alone, which is as unique while it runs.
func HostIDs() (machineID, bootID string, err error) {
	if bootID, err = idFile("/proc/sys/kernel/random/boot_id"); err != nil {
		return "", "", err
	}
	if machineID, err = idFile("/etc/machine-id"); err != nil {
		machineID = "boot-" + bootID
	}
	return machineID, bootID, nil
}

func idFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", errs.About(errs.Invalid, path, "read host id: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if id == "" {
		return "", errs.About(errs.Invalid, path, "%s is empty", path)
	}
	return id, nil
}
