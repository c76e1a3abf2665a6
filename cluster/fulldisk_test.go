//go:build e2e

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/cluster/clustertest"
	"github.com/ironring/ironring/internal/errs"
)

// smallDisk is a file system of 24 MiB; it needs root.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no byte free. The file is grown by writing, so that the space is
// really taken.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 4 {
		for block := make([]byte, size); err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// bulky makes a node with a large document.
func bulky(name string) *api.Op {
	op := createNode(name)
	op.GetNodeCreate().Node.Extra = []byte(`{"x":"` + strings.Repeat("x", 60<<10) + `"}`)
	return op
}

func problemsOf(p *clustertest.Peer) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return strings.Join(p.Status(ctx).GetProblems(), "; ")
}

// The disk of the only peer is full: changes are refused with the reason, it
// can be read, what was accepted is there, and it goes on when there is space.
func TestFullDiskOfTheOnlyPeer(t *testing.T) {
	dir := smallDisk(t)
	k := clustertest.New(t, clustertest.Options{Configure: func(_ string, c *cluster.Config) { c.SnapshotThreshold = 1 << 20 }})
	p := k.Add("p1")
	p.Dir = filepath.Join(dir, "data")
	if err := k.TryStart(p, func(c *cluster.Config) { c.Init, c.Settings = true, clustertest.Settings() }); err != nil {
		t.Fatal(err)
	}
	k.WaitReady(p)
	free := fill(t, dir)
	accepted := []string{}
	var refused error
	for i := 0; refused == nil; i++ {
		name := fmt.Sprintf("n%d", i)
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		_, refused = p.Propose(ctx, command("", bulky(name)))
		cancel()
		if refused == nil {
			accepted = append(accepted, name)
		}
		if i == 1000 {
			t.Fatal("the disk never gets full")
		}
	}
	k.Wait("the peer says that its disk is full", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := p.Propose(ctx, command("", bulky("more")))
		return err != nil && !errors.Is(err, errs.Internal) && strings.Contains(err.Error(), p.Dir+" is full") && strings.Contains(err.Error(), "free space")
	})
	if got := problemsOf(p); !strings.Contains(got, "p1: the disk that holds "+p.Dir+" is full") {
		t.Errorf("status says %q", got)
	}
	for _, name := range accepted {
		if p.Store().View().NodeByName(name) == nil {
			t.Errorf("%s cannot be read", name)
		}
	}
	k.Quit("p1")
	p = k.Restart("p1")
	k.Wait("status names the disk after a restart too", func() bool {
		return strings.Contains(problemsOf(p), "p1: the disk that holds "+p.Dir+" ")
	})
	free()
	k.Wait("changes are taken again", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := p.Propose(ctx, command("", createNode("after")))
		return err == nil || errors.Is(err, errs.Exists)
	})
	k.Quit("p1")
	k.WaitReady(k.Restart("p1"))
	for _, name := range append(accepted, "after") {
		if p.Store().View().NodeByName(name) == nil {
			t.Errorf("%s is lost", name)
		}
	}
	k.Wait("status is quiet", func() bool { return !strings.Contains(problemsOf(p), " is full (") })
}

// The disk of one of three is full: the others go on and say whose it is; its
// lease ends, so that its nodes go elsewhere; with space again it catches up.
func TestFullDiskOfAFollower(t *testing.T) {
	dir := smallDisk(t)
	k := clustertest.New(t, clustertest.Options{Configure: func(_ string, c *cluster.Config) { c.SnapshotThreshold = 1 << 20 }})
	k.Found("p1")
	k.Join("p2", k.Token("p1"))
	p3 := k.Add("p3")
	p3.Dir = filepath.Join(dir, "data")
	token := k.Token("p1")
	if err := k.TryStart(p3, func(c *cluster.Config) { c.JoinToken = token }); err != nil {
		t.Fatal(err)
	}
	k.WaitReady(p3)
	k.WaitVoters(3)
	r := leases(t, k, "p1")
	k.Wait("p3 owns a node", func() bool {
		k.MustPropose("p1", createNode(fmt.Sprintf("own-%d", time.Now().UnixNano())))
		return ownedBy(k, "p3") > 0
	})
	free := fill(t, dir)
	for i := range 40 {
		k.MustPropose("p1", bulky(fmt.Sprintf("n%d", i)))
	}
	k.Wait("status names the disk", func() bool {
		return strings.Contains(problemsOf(k.Peer("p1")), "p3: the disk that holds "+p3.Dir+" is full")
	})
	r.drop("p3") // it applies nothing, and stops renewing (package conductor/lease)
	k.Wait("its nodes go elsewhere", func() bool { return ownedBy(k, "p3") == 0 })
	free()
	k.WaitSame()
	k.Wait("status is quiet", func() bool { return !strings.Contains(problemsOf(k.Peer("p1")), " is full (") })
}

func ownedBy(k *clustertest.Kit, id string) (n int) {
	for node := range k.Peer("p1").Store().View().Nodes() {
		if node.GetAssigned() == id {
			n++
		}
	}
	return n
}
