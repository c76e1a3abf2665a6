package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
	"github.com/ironring/ironring/node"
)

// theSecrets are values under keys that look like those of secrets; none may
// be found anywhere but in the memory of who uses it.
var theSecrets = []string{"s3cret-bmc", "s3cret-properties", "s3cret-extra", "s3cret-nested", "s3cret-instance", "s3cret-port", "918273645"}

// hides fails when a secret is in what has left the peer.
func hides(t *testing.T, what string, data []byte) {
	t.Helper()
	for _, s := range theSecrets {
		if bytes.Contains(data, []byte(s)) {
			t.Errorf("%s holds %s", what, s)
		}
	}
}

// collector takes what a stream sends.
type collector[T any] struct {
	grpc.ServerStream
	ctx  context.Context
	sent func(*T) error
}

func (c collector[T]) Context() context.Context { return c.ctx }
func (c collector[T]) Send(m *T) error          { return c.sent(m) }

func createWithSecrets(f *fixture) *api.NodeReply {
	f.Helper()
	rep, err := f.svc.CreateNode(f.ctx, &api.CreateNodeRequest{
		Node: &api.Node{
			Name: "n1", Driver: "fake", DriverInfo: []byte(`{"fake_address":"a","fake_password":"s3cret-bmc"}`),
			Properties:   []byte(`{"raid_passphrase":"s3cret-properties","cpus":4,"pin_token":918273645}`),
			Extra:        []byte(`{"api-key":"s3cret-extra","credentials":{"list":["s3cret-nested"],"on":true},"note":"seen"}`),
			InstanceInfo: []byte(`{"root_password":"s3cret-instance","image_source":"http://i/x"}`),
		},
		Ports: []*api.Port{{Address: mac, PxeEnabled: true, Extra: []byte(`{"switch_password":"s3cret-port"}`)}},
	})
	if err != nil {
		f.Fatal(err)
	}
	return rep
}

// No secret is in the log, in a snapshot, in an answer or in an error; whoever
// has the keyring opens it at its place.
func TestSecretsEverywhere(t *testing.T) {
	bubble(t, func(f *fixture) {
		made := createWithSecrets(f)
		id := made.GetNode().GetId()
		if err := f.update("n1", map[string]string{"extra/second_token": `"s3cret-extra"`, "instance_info/root_password": `"s3cret-instance"`}); err != nil {
			f.Fatal(err)
		}
		if _, err := f.svc.CreatePort(f.ctx, &api.CreatePortRequest{Node: "n1", Port: &api.Port{Address: "52:54:00:00:00:77", Extra: []byte(`{"key":"s3cret-port"}`)}}); err != nil {
			f.Fatal(err)
		}
		for _, cmd := range f.c.Log() {
			raw, err := proto.Marshal(cmd)
			if err != nil {
				f.Fatal(err)
			}
			hides(f.T, "the log", raw)
		}
		var snapshot bytes.Buffer
		if _, err := f.c.Store.Snapshot().WriteTo(&snapshot); err != nil {
			f.Fatal(err)
		}
		hides(f.T, "the snapshot", snapshot.Bytes())

		answers := []proto.Message{made}
		keep := func(m proto.Message, err error) {
			if err != nil {
				f.Error(err)
			}
			answers = append(answers, m)
		}
		get, err := f.svc.GetNode(f.ctx, &api.GetNodeRequest{Node: "n1"})
		keep(get, err)
		list, err := f.svc.ListNodes(f.ctx, &api.ListNodesRequest{})
		keep(list, err)
		ports, err := f.svc.ListPorts(f.ctx, &api.ListPortsRequest{Node: "n1"})
		keep(ports, err)
		all, err := f.svc.ListPorts(f.ctx, &api.ListPortsRequest{})
		keep(all, err)
		explain, err := f.svc.Explain(f.ctx, &api.ExplainRequest{Node: "n1"})
		keep(explain, err)
		history, err := f.svc.History(f.ctx, &api.HistoryRequest{Node: "n1"})
		keep(history, err)
		done := errs.New(errs.Timeout, "enough")
		if err := f.svc.WatchNode(&api.WatchNodeRequest{Node: "n1"}, collector[api.NodeEvent]{ctx: f.ctx, sent: func(ev *api.NodeEvent) error {
			keep(proto.CloneOf(ev), nil)
			return done
		}}); err == nil {
			f.Error("the watch did not end")
		}
		for _, m := range answers {
			raw, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			name := string(m.ProtoReflect().Descriptor().Name())
			hides(f.T, name, raw)
			if strings.Contains(string(raw), seal.Prefix) {
				f.Errorf("%s holds sealed values, which are nobody's business", name)
			}
		}
		if got := string(get.GetNode().GetExtra()); got != `{"api-key":"******","credentials":{"list":["******"],"on":true},"note":"seen","second_token":"******"}` {
			f.Errorf("extra is shown as %s", got)
		}
		if len(ports.GetPorts()) != 2 || string(ports.GetPorts()[0].GetExtra()) == "{}" {
			f.Errorf("ports: %v", ports)
		}

		// Whoever has the keyring gets the numbers as numbers.
		n := f.stored("n1")
		var props struct {
			Pass string      `json:"raid_passphrase"`
			CPUs json.Number `json:"cpus"`
			Pin  json.Number `json:"pin_token"`
		}
		doc, err := f.p.Keyring().OpenDoc(seal.NodeAAD(id, "properties"), n.GetProperties())
		if err != nil || json.Unmarshal(doc, &props) != nil || props.Pass != "s3cret-properties" || props.Pin != "918273645" || props.CPUs != "4" {
			f.Errorf("properties open as %+v, %v", props, err)
		}
	})
}

// What was read masked and is sent back would lose the secret, whichever
// document it is in; and no error repeats what may be one.
func TestMaskedValuesAreRefused(t *testing.T) {
	bubble(t, func(f *fixture) {
		createWithSecrets(f)
		shown, err := f.svc.GetNode(f.ctx, &api.GetNodeRequest{Node: "n1"})
		if err != nil {
			f.Fatal(err)
		}
		before := f.stored("n1")
		for _, d := range node.Documents {
			err := f.update("n1", map[string]string{d.Field: string(*d.Of(shown.GetNode()))})
			wants(f.T, d.Field+" as shown", err, errs.Invalid, d.Field+"/")
			wants(f.T, d.Field+" as shown", err, errs.Invalid, seal.Mask)
			wants(f.T, d.Field+" of a path", f.update("n1", map[string]string{d.Field + "/x_password": `"` + seal.Mask + `"`}), errs.Invalid, seal.Mask)
		}
		_, err = f.svc.CreatePort(f.ctx, &api.CreatePortRequest{Node: "n1", Port: &api.Port{Address: "52:54:00:00:00:78", Extra: []byte(`{"key":"******"}`)}})
		wants(f.T, "port", err, errs.Invalid, "extra/key")
		// A value of one document does not open in another.
		err = f.update("n1", map[string]string{"extra": string(before.GetInstanceInfo())})
		wants(f.T, "sealed for another document", err, errs.Invalid, "extra")
		for _, set := range []map[string]string{
			{"root_password": `"s3cret-extra"`}, {"extra_password": `s3cret-extra`}, {"protected": `"s3cret-extra"`},
			{"extra/a": `{"password":"s3cret-extra"`}, {"extra": `{"password":"s3cret-extra"`}, {"name": `{"password":"s3cret-extra"}`},
			{"properties/root_device": `{"password":"s3cret-extra"}`}, {"driver_info/fake_other_password": `"s3cret-extra"`},
		} {
			err := f.update("n1", set)
			if err == nil {
				f.Errorf("%v was accepted", set)
				continue
			}
			hides(f.T, "an error", []byte(err.Error()))
		}
		if after := f.stored("n1"); !proto.Equal(before, after) {
			f.Error("a refused change left something behind")
		}
	})
}
