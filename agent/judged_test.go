package agent_test

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ironring/ironring/agent"
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/rootdisk"
)

// rack is a machine to whose disks a person does something, once, right after
// the agent has looked at them.
type rack struct {
	agent.Hardware

	mu    sync.Mutex
	looks int                                             // guarded by mu
	at    int                                             // the look after which it is done
	then  func(disks []agentproto.Disk) []agentproto.Disk // what the agent sees from then on
}

func (r *rack) Disks(ctx context.Context) ([]agentproto.Disk, error) {
	disks, err := r.Hardware.Disks(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.looks++; r.looks > r.at {
		disks = r.then(slices.Clone(disks))
	}
	return disks, err
}

func exchanged(disks []agentproto.Disk) []agentproto.Disk {
	disks[0].Serial, disks[0].WWN = "DISK-Z", "0x5000c500ffffffff"
	return disks
}

func withData(disks []agentproto.Disk) []agentproto.Disk {
	disks[0].Contents = []string{"GPT", "ext"}
	return disks
}

func unreadable(disks []agentproto.Disk) []agentproto.Disk {
	disks[0].Contents = nil
	return disks
}

// Between the moment when it was decided that disks may be written and the
// first byte they are exchanged, added, taken away, or filled: nothing is
// written to any of them.
func TestDisksChangeBeforeTheFirstByte(t *testing.T) {
	for _, c := range []struct {
		name string
		at   int // looks of the command before it happens
		then func([]agentproto.Disk) []agentproto.Disk
		want string
		only string // the command that it is for; "" for all
	}{
		{"exchanged before the look", 0, exchanged, "DISK-A", ""},
		{"exchanged while it is opened", 1, exchanged, "is not the disk any more", ""},
		{"taken away while it is opened", 1, func(d []agentproto.Disk) []agentproto.Disk { return d[1:] }, "is not the disk any more", ""},
		{"filled", 0, withData, "GPT, ext", ""},
		{"not readable any more", 0, unreadable, "could not be read", ""},
		{"read-only by now", 0, func(d []agentproto.Disk) []agentproto.Disk { d[0].ReadOnly = true; return d }, "read-only", ""},
		{"one more", 0, func(d []agentproto.Disk) []agentproto.Disk {
			more := d[1]
			more.Name, more.Serial, more.Model, more.Contents = "/dev/vdc", "DISK-C", "New Disk", []string{"ntfs"}
			return append(d, more)
		}, "/dev/vdc (16.0 MiB, serial DISK-C, wwn -, model New Disk) was not there then and holds: ntfs", agentproto.CmdEraseMetadata},
		{"one less", 0, func(d []agentproto.Disk) []agentproto.Disk { return d[:1] }, "serial DISK-B, wwn -, model -) is not there any more", agentproto.CmdEraseMetadata},
	} {
		for _, name := range []string{agentproto.CmdEraseMetadata, agentproto.CmdWriteImage} {
			if c.only != "" && c.only != name {
				continue
			}
			t.Run(c.name+", "+name, func(t *testing.T) {
				w := newWorld(t, nil)
				before, err := w.machine.Disks(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				list := rootdisk.Judge(before)
				if len(list) != 2 || list[0].Contents == nil || len(list[0].Contents) != 0 {
					t.Fatalf("%+v", list)
				}
				w.cfg.Hardware = &rack{Hardware: w.machine, at: c.at, then: c.then}
				w.start(w.Peer(""))
				w.Hello(1)
				var args any = agentproto.EraseArgs{Disks: list}
				if name == agentproto.CmdWriteImage {
					img := newImage(t, 8<<20)
					a := img.args("", diskA())
					a.Disk = list[0]
					args = a
				}
				st := w.run("c", name, args)
				if st.State != api.CommandStatus_FAILED || st.ErrorKind != "denied" || !strings.Contains(st.Error, c.want) {
					t.Error(st)
				}
				for _, d := range before {
					if n := w.machine.BytesWritten(d.Name); n != 0 {
						t.Errorf("%d bytes were written to %s", n, d.Name)
					}
				}
			})
		}
	}
}

// What cannot be read reaches the holder as "not known", not as blank.
func TestUnreadableIsNotBlank(t *testing.T) {
	w := newWorld(t, nil)
	if err := os.Truncate(w.path("vda"), 1<<20); err != nil {
		t.Fatal(err)
	}
	w.start(w.Peer(""))
	w.Hello(1)
	st := w.run("inv", agentproto.CmdInventory, struct{}{})
	var inv agentproto.Inventory
	if err := json.Unmarshal(st.Result, &inv); err != nil || len(inv.Disks) != 2 {
		t.Fatal(st)
	}
	if rootdisk.Blank(inv.Disks[0]) || inv.Disks[0].Contents != nil || !rootdisk.Blank(inv.Disks[1]) {
		t.Errorf("%+v", inv.Disks)
	}
}
