package fsm

import (
	"bytes"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

// nodeEntry is an entry that creates nodes.
func nodeEntry(b testing.TB, from, count int) []byte {
	e := &api.Entry{}
	for i := from; i < from+count; i++ {
		op := nodeCreate(nodeID(i), fmt.Sprint("node-", i))
		n := op.GetNodeCreate().Node
		n.DriverInfo = []byte(`{"redfish_address":"https://10.0.0.1","redfish_password":"ironring-sealed:1:k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAA","redfish_username":"admin"}`)
		n.Properties = []byte(`{"cpu_arch":"x86_64","cpus":64,"local_gb":960,"memory_mb":524288}`)
		n.Assigned = "p1"
		e.Commands = append(e.Commands, &api.Command{
			Meta: &api.Meta{Principal: "client:bench", Source: "10.0.0.9:41234", Reason: "create node", WallMs: 1_700_000_000_000},
			Ops:  []*api.Op{op, portCreate(uid(2, i), nodeID(i), fmt.Sprintf("52:54:%02x:%02x:%02x:%02x", i>>24&0xff, i>>16&0xff, i>>8&0xff, i&0xff))},
		})
	}
	out, err := proto.Marshal(e)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// BenchmarkNodeCreate256 applies entries of 256 node creations, each with a
// port.
func BenchmarkNodeCreate256(b *testing.B) {
	f := newFixture(b)
	f.ok(memberSet("p1"))
	entries := make([][]byte, b.N)
	for i := range entries {
		entries[i] = nodeEntry(b, i*256, 256)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, e := range entries {
		f.index++
		if res, err := f.s.Apply(f.index, 1, e); err != nil || res[255].GetFailure() != nil {
			b.Fatal(err, res[255])
		}
	}
	b.ReportMetric(float64(b.N)*256/b.Elapsed().Seconds(), "nodes/s")
}

// BenchmarkStep is one joined command of the flow engine.
func BenchmarkStep(b *testing.B) {
	f := owned(b)
	fl := newFlow(api.FlowKind_FLOW_VERIFY, 10)
	f.ok(flowCreate(manage, fl))
	tok := f.lock()
	f.ok(stepStart(tok, fl.GetId(), 0, 1, none))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		f.entry(&api.Command{Meta: user, Ops: []*api.Op{stepStart(tok, fl.GetId(), 0, uint32(i+2), none), open(tok), closeIntent(tok, uint64(i+1))}})
	}
}

func benchStore(b *testing.B, count int) *fixture {
	f := newFixture(b)
	f.ok(memberSet("p1"))
	for i := 0; i < count; i += 256 {
		f.index++
		if _, err := f.s.Apply(f.index, 1, nodeEntry(b, i, 256)); err != nil {
			b.Fatal(err)
		}
	}
	return f
}

func BenchmarkSnapshot10k(b *testing.B) {
	f := benchStore(b, 10_000)
	b.ResetTimer()
	for range b.N {
		b.SetBytes(int64(len(snapshotOf(b, f.s))))
	}
}

func BenchmarkRestore10k(b *testing.B) {
	raw := snapshotOf(b, benchStore(b, 10_000).s)
	b.SetBytes(int64(len(raw)))
	b.ResetTimer()
	for range b.N {
		if err := New().Restore(bytes.NewReader(raw)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDigest10k(b *testing.B) {
	f := benchStore(b, 10_000)
	b.ResetTimer()
	for range b.N {
		f.s.Digest()
	}
}

func BenchmarkViewNode(b *testing.B) {
	f := benchStore(b, 10_000)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if f.s.View().Node(nodeID(i%10_000)) == nil {
			b.Fatal("no node")
		}
	}
}

// BenchmarkNodeCreate1 is the same work in entries, and so transactions, of
// one command each.
func BenchmarkNodeCreate1(b *testing.B) {
	f := newFixture(b)
	f.ok(memberSet("p1"))
	entries := make([][]byte, b.N)
	for i := range entries {
		entries[i] = nodeEntry(b, i, 1)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, e := range entries {
		f.index++
		if _, err := f.s.Apply(f.index, 1, e); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "nodes/s")
}
