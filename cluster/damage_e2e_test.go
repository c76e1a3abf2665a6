//go:build e2e

package cluster_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/cluster/clustertest"
	"github.com/ironring/ironring/internal/errs"
)

// A disk that is full, or mounted read-only, is called that and not damage; a
// peer that was there before may be read. Afterwards it starts.
func TestFullDiskOrReadOnlyAtStart(t *testing.T) {
	dir := smallDisk(t)
	k := clustertest.New(t, clustertest.Options{})
	p := k.Add("p1")
	p.Dir = filepath.Join(dir, "data")
	init := func(c *cluster.Config) { c.Init, c.Settings = true, clustertest.Settings() }
	free := fill(t, dir)
	if err := k.TryStart(p, init); !errors.Is(err, errs.Busy) || !strings.Contains(err.Error(), p.Dir+" is full") || !strings.Contains(err.Error(), "free space, then start again") {
		t.Errorf("found a cluster on a full disk: %v", err)
	}
	free()
	if err := k.TryStart(p, init); err != nil {
		t.Fatal(err)
	}
	k.WaitReady(p)
	k.MustPropose("p1", createNode("before"))
	k.Quit("p1")

	free = fill(t, dir)
	// What is there can be read, so that it starts, if the file system has the
	// few bytes that it overwrites.
	if err := k.TryStart(p, nil); err == nil {
		t.Log("started on a full disk: ", problemsOf(p))
		k.Quit("p1")
	} else if !errors.Is(err, errs.Busy) || !strings.Contains(err.Error(), "is full (0 B free)") {
		t.Errorf("start on a full disk: %v", err)
	}
	free()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := k.TryStart(p, nil); !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), p.Dir+" is on a file system that is mounted read-only") {
		t.Errorf("start on a read-only file system: %v", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=24m"); err != nil {
		t.Fatal(err)
	}
	k.WaitReady(k.Restart("p1"))
	if k.Peer("p1").Store().View().NodeByName("before") == nil {
		t.Error("a node is lost")
	}
}
