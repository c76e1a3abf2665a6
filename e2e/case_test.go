//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ironring/ironring/e2e/harness"
)

// kase is one case: a cluster of three peers of its own, and machines.
type kase struct {
	*harness.Cluster
	name  string
	vms   []*harness.VM
	bmcs  []interface{ Close() }
	nodes []string
}

// errNoFirmware ends a case in which a machine did not even start its firmware:
// that is the host's fault, not the product's.
var errNoFirmware = errors.New("a machine showed no firmware output")

// runCase runs a case, and once more if a machine showed no firmware output.
func runCase(t *testing.T, name string, f func(ctx context.Context, k *kase) error) {
	t.Helper()
	runCaseOf(t, harness.ClusterSpec{Name: name}, f)
}

// runCaseOf is runCase with a choice of cluster.
func runCaseOf(t *testing.T, spec harness.ClusterSpec, f func(ctx context.Context, k *kase) error) {
	t.Helper()
	name := spec.Name
	err := once(t, spec, f)
	if errors.Is(err, errNoFirmware) {
		lab.Logf("RETRIED: case %s: %v", name, err)
		t.Logf("RETRIED: case %s: %v", name, err)
		spec.Name += "-again"
		err = once(t, spec, f)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func once(t *testing.T, spec harness.ClusterSpec, f func(ctx context.Context, k *kase) error) (err error) {
	t.Helper()
	start, name := time.Now(), spec.Name
	k := &kase{name: name}
	defer func() {
		if serr := k.silent(); err != nil && serr != nil {
			err = errors.Join(serr, err)
		}
		k.end(t, err)
		lab.Logf("case %s: %.1f s, %s", name, time.Since(start).Seconds(), verdict(err))
	}()
	if spec.Ramdisk, err = ramdisk(); err != nil {
		return err
	}
	if k.Cluster, err = lab.StartCluster(t.Context(), spec); err != nil {
		return err
	}
	k.Abort = k.silent
	if !spec.Static {
		if err := k.CLI(t.Context(), nil, "network", "set", "provisioning", "--cidr", harness.ProvCIDR, "--range", "10.77.0.100-10.77.0.199"); err != nil {
			return err
		}
	}
	lab.Logf("case %s: cluster of %d after %.1f s", name, len(k.Peers), time.Since(start).Seconds())
	return f(t.Context(), k)
}

func verdict(err error) string {
	if err != nil {
		return "FAILED: " + err.Error()
	}
	return "passed"
}

// silent is errNoFirmware when a machine of the case did not start.
func (k *kase) silent() error {
	for _, vm := range k.vms {
		if vm.Silent() {
			return fmt.Errorf("%s: %w", vm.Name, errNoFirmware)
		}
	}
	return nil
}

// end saves what there is to know, shows the tail of it when the case failed,
// and ends what the case started.
func (k *kase) end(t *testing.T, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	if k.Cluster != nil {
		for _, n := range k.nodes {
			k.SaveTimeline(ctx, n)
		}
	}
	for _, vm := range k.vms {
		vm.PowerOff("the case ends")
	}
	for _, bmc := range k.bmcs {
		bmc.Close()
	}
	if k.Cluster != nil {
		k.Kill()
	}
	if err == nil {
		return
	}
	for _, vm := range k.vms {
		tail(t, vm.Console.File)
	}
	files, _ := filepath.Glob(filepath.Join(lab.Dir, k.name, "*", "ironring.log"))
	nodes, _ := filepath.Glob(filepath.Join(lab.Dir, k.name, "*.txt"))
	for _, f := range append(files, nodes...) {
		tail(t, f)
	}
}

// tail shows the end of a file; all of it stays in the run's directory.
func tail(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimRight(string(bytes.ToValidUTF8(b, nil)), "\n"), "\n")
	lines = lines[max(0, len(lines)-25):]
	for i, l := range lines {
		lines[i] = l[:min(len(l), 300)]
	}
	t.Logf("--- the end of %s\n%s", file, strings.Join(lines, "\n"))
}

// ramdisk is built once for all cases.
var ramdisk = sync.OnceValues(func() (string, error) { return lab.Ramdisk(context.Background(), boot.Kernel) })

// images is the image server of all cases.
var images = sync.OnceValues(func() (*harness.ImageServer, error) { return lab.ServeImages() })

// image makes an image and serves it; with atLeast it takes that long to read.
func image(name string, atLeast time.Duration) (*harness.Image, string, error) {
	img, err := lab.Image(context.Background(), boot, name)
	if err != nil {
		return nil, "", err
	}
	srv, err := images()
	if err != nil {
		return nil, "", err
	}
	return img, srv.Add(img, atLeast), nil
}

// machine makes a machine that is off, with an empty disk and its BMC.
func (k *kase) machine(ctx context.Context, index int, turn *harness.Turn, spec harness.BMCSpec) (*harness.VM, *harness.BMC, error) {
	return k.machineOf(ctx, harness.VMSpec{Index: index, Turn: turn}, spec)
}

// machineOf is machine with a choice of firmware and network. What tells
// machines apart is filled in.
func (k *kase) machineOf(ctx context.Context, vs harness.VMSpec, spec harness.BMCSpec) (*harness.VM, *harness.BMC, error) {
	vm, err := k.bare(vs)
	if err != nil {
		return nil, nil, err
	}
	bmc, err := lab.NewBMC(ctx, vm, spec)
	if err != nil {
		return nil, nil, err
	}
	k.bmcs = append(k.bmcs, bmc)
	return vm, bmc, nil
}

// bare makes a machine without a BMC.
func (k *kase) bare(vs harness.VMSpec) (*harness.VM, error) {
	vs.UUID, vs.Serial, vs.DiskMB = uuid.NewString(), fmt.Sprintf("E2E-%s-%d", lab.Prefix, vs.Index), 8<<10
	vm, err := lab.NewVM(vs)
	if err == nil {
		k.vms = append(k.vms, vm)
	}
	return vm, err
}

// enrol creates a node for a machine and makes it manageable.
func (k *kase) enrol(ctx context.Context, name string, mac string, bmc *harness.BMC) error {
	password := filepath.Join(lab.Dir, k.name, "bmc-password")
	if err := os.WriteFile(password, []byte(bmc.Password), 0o600); err != nil {
		return err
	}
	k.nodes = append(k.nodes, name)
	if err := k.CLI(ctx, nil, "node", "create", "--name", name, "--driver", "ipmi", "--port", mac,
		"--driver-info", "ipmi_address="+bmc.Addr, "--driver-info", "ipmi_username="+bmc.User,
		"--driver-info", "ipmi_password=@"+password, "--driver-info", "ipmi_cipher_suite=3"); err != nil {
		return err
	}
	return k.verb(ctx, name, "manage", "MANAGEABLE", 60*time.Second)
}

// verb asks for work on a node and waits until it is done. Nobody is there to be
// asked whether a clean may erase.
func (k *kase) verb(ctx context.Context, name, verb, until string, limit time.Duration, args ...string) error {
	start := time.Now()
	if verb == "provide" {
		args = append(args, "--yes")
	}
	if err := k.CLI(ctx, nil, append([]string{"node", verb, name}, args...)...); err != nil {
		return err
	}
	if _, err := k.WaitState(ctx, name, until, lab.Limit(limit)); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	lab.Logf("%s: %s took %.1f s", name, verb, time.Since(start).Seconds())
	return nil
}

// available brings a machine from nothing to a node that can be deployed.
func (k *kase) available(ctx context.Context, name string, vm *harness.VM, bmc *harness.BMC) error {
	if err := k.enrol(ctx, name, vm.MAC, bmc); err != nil {
		return err
	}
	return k.verb(ctx, name, "provide", "AVAILABLE", 4*time.Minute)
}
