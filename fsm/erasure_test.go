package fsm

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// What is known of erased disks is kept whole, and is
// bounded with the other fields of a flow.
func TestErasedDisksAreKept(t *testing.T) {
	f := owned(t)
	tok := f.lock()
	erasure := &api.Erasure{Level: api.Erasure_METADATA, Disks: []string{"S1"}, FlowId: "f", Erased: []*api.DiskRecord{
		{Name: "/dev/sda", Serial: "S1", Wwn: "0x5", ByPath: "pci-1", Model: "M", SizeBytes: 1 << 40},
	}}
	root := &api.RootDisk{Name: "/dev/sda", Serial: "S1", FlowId: "f", BegunCmd: "c", Before: []*api.DiskRecord{{Serial: "S2"}}, Handed: true}
	f.ok(nodeWrite(tok, &api.Node{Erasure: erasure, RootDisk: root}, "erasure", "root_disk"))
	if n := f.s.View().Node(nodeID(1)); !proto.Equal(n.GetErasure(), erasure) || !proto.Equal(n.GetRootDisk(), root) {
		t.Errorf("kept are %v and %v", n.GetErasure(), n.GetRootDisk())
	}
	long := strings.Repeat("x", 1<<10)
	for range 80 {
		erasure.Erased = append(erasure.Erased, &api.DiskRecord{Serial: long})
	}
	f.fails(errs.Invalid, nodeWrite(tok, &api.Node{Erasure: erasure}, "erasure"))
	f.fails(errs.Invalid, nodeWrite(tok, &api.Node{RootDisk: &api.RootDisk{FlowId: strings.Repeat(long, 80)}}, "root_disk"))
	f.fails(errs.Invalid, nodeWrite(tok, &api.Node{RootDisk: &api.RootDisk{BegunCmd: strings.Repeat(long, 80)}}, "root_disk"))
	f.fails(errs.Invalid, nodeWrite(tok, &api.Node{RootDisk: &api.RootDisk{Before: erasure.GetErased()}}, "root_disk"))
}
