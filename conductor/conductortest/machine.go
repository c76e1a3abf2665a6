package conductortest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/agents"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
)

// MachineConfig describes a machine. Cluster, Node, BMC and Hub are required.
type MachineConfig struct {
	Cluster *Cluster
	Node    string
	BMC     *fake.BMC
	Hub     func(peer string) *agents.Hub // of a live peer, else nil
	MAC     string
	// BootTime is from power-on to the agent's first call, WriteTime how long
	// an image takes.
	BootTime, WriteTime time.Duration
	Disks               []agentproto.Disk
	// Unreadable says that nil Contents of a disk mean that it cannot be read;
	// else they mean that it is blank.
	Unreadable bool
	// Script, if not nil, may answer a command in the place of the machine:
	// nil lets it pass.
	Script func(cmd *api.AgentCommand) *api.CommandStatus
}

// Machine is a machine behind a fake BMC. When it is switched on and boots from
// the network it does what the boot record says; in the ramdisk it obeys as an
// agent does: commands are known by their cmdID, lower tokens are refused.
type Machine struct {
	cfg MachineConfig

	mu      sync.Mutex         // guards cfg.Disks too
	off     context.CancelFunc // guarded by mu; ends what runs on it
	running sync.WaitGroup
	begun   []*api.AgentCommand // guarded by mu
	tokens  []uint64            // guarded by mu; of all messages, in order
	image   string              // guarded by mu; checksum of what is on the disk
	booted  string              // guarded by mu; "ramdisk", "disk" or ""
	boots   int                 // guarded by mu; of the ramdisk
	agent   *ramdiskAgent       // guarded by mu; of the present boot
}

// NewMachine makes a machine that is off. Close must be called.
func NewMachine(cfg MachineConfig) *Machine {
	m := &Machine{cfg: cfg}
	cfg.BMC.OnPower(func(state api.PowerState, device api.BootDevice) {
		m.stop()
		if state == api.PowerState_POWER_ON {
			m.start(device)
		}
	})
	return m
}

// Close switches the machine off and waits until nothing runs on it.
func (m *Machine) Close() {
	m.cfg.BMC.OnPower(nil)
	m.stop()
	m.running.Wait()
}

// ForgetAll has the agent lose its memory and begin anew within the same boot.
// What it was doing has no end that anybody hears of.
func (m *Machine) ForgetAll() {
	m.mu.Lock()
	a := m.agent
	m.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.life++
	a.known, a.highest = map[string]*api.CommandStatus{}, 0
	a.drop()
}

// SetDisks changes the machine's disks, as a person at the rack does.
func (m *Machine) SetDisks(disks ...agentproto.Disk) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cfg.Disks = disks
}

// holds sets what lies on a disk, if it is still there.
func (m *Machine) holds(d agentproto.Disk, contents []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cfg.Disks = slices.Clone(m.cfg.Disks) // SetDisks took the caller's
	for i := range m.cfg.Disks {
		if rootdisk.ID(m.cfg.Disks[i]) == rootdisk.ID(d) {
			m.cfg.Disks[i].Contents = contents
		}
	}
}

// disks are what the agent sees.
func (m *Machine) disks() []agentproto.Disk {
	m.mu.Lock()
	defer m.mu.Unlock()
	disks := slices.Clone(m.cfg.Disks)
	for i := range disks {
		if disks[i].Contents == nil && !m.cfg.Unreadable {
			disks[i].Contents = []string{}
		}
	}
	return disks
}

// Begun are the commands that the agent has begun, in order, of all boots.
func (m *Machine) Begun(name string) []*api.AgentCommand {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(m.begun), func(c *api.AgentCommand) bool { return c.GetName() != name })
}

// Tokens are those of the messages that the agent accepted, in order.
func (m *Machine) Tokens() []uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.tokens)
}

// Booted is what runs: "ramdisk", "disk", "" for nothing. image is the checksum
// of what was written.
func (m *Machine) Booted() (what, image string, ramdisks int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.booted, m.image, m.boots
}

// Stop cuts the machine's power without its BMC.
func (m *Machine) Stop() { m.stop() }

func (m *Machine) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off != nil {
		m.off()
	}
	m.off, m.booted = nil, ""
}

func (m *Machine) start(device api.BootDevice) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	m.off = cancel
	m.running.Go(func() {
		_ = clock.Pause(ctx, m.cfg.BootTime)
		if ctx.Err() == nil {
			m.boot(ctx, device)
		}
	})
}

// medium says whether the drive holds the medium of a boot.
func (m *Machine) medium(nonce string) bool {
	image := ""
	for _, c := range m.cfg.BMC.Calls() {
		switch {
		case c.Effective.IsZero():
		case c.Verb == fake.InsertMedia:
			image = c.Image
		case c.Verb == fake.EjectMedia:
			image = ""
		}
	}
	return nonce != "" && strings.HasSuffix(image, "/"+nonce+".iso")
}

func (m *Machine) boot(ctx context.Context, device api.BootDevice) {
	record := m.cfg.Cluster.Store.View().Node(m.cfg.Node).GetBoot()
	network := device == api.BootDevice_BOOT_DEVICE_PXE || device == api.BootDevice_BOOT_DEVICE_CDROM && m.medium(record.GetNonce())
	if !network || record.GetTarget() != api.BootTarget_BOOT_RAMDISK {
		m.mu.Lock()
		defer m.mu.Unlock()
		if ctx.Err() == nil && m.image != "" {
			m.booted = "disk"
		}
		return
	}
	key := sha256.Sum256([]byte(record.GetNonce()))
	_, err := m.cfg.Cluster.Apply(&api.Op{Op: &api.Op_AgentEnrol{AgentEnrol: &api.AgentEnrol{NodeId: m.cfg.Node, Session: &api.AgentSession{
		Nonce: record.GetNonce(), KeyDigest: key[:], Incarnation: "1",
	}}}})
	if err != nil {
		return // the boot is over
	}
	m.mu.Lock()
	a := &ramdiskAgent{m: m, on: ctx, nonce: record.GetNonce(), life: 1, known: map[string]*api.CommandStatus{}}
	m.booted, m.agent = "ramdisk", a
	m.boots++
	m.mu.Unlock()
	for ctx.Err() == nil {
		a.session(ctx)
		_ = clock.Pause(ctx, 200*time.Millisecond)
	}
}

// ramdiskAgent is the agent of one boot.
type ramdiskAgent struct {
	m     *Machine
	on    context.Context // ends when the machine is switched off
	nonce string

	mu      sync.Mutex
	life    int                           // guarded by mu; its incarnation
	drop    context.CancelFunc            // guarded by mu; ends the present session
	highest uint64                        // guarded by mu
	known   map[string]*api.CommandStatus // guarded by mu
	up      chan<- *api.AgentUp           // guarded by mu; of the present session
}

// session is one stream to whoever has the node.
func (a *ramdiskAgent) session(ctx context.Context) {
	v := a.m.cfg.Cluster.Store.View()
	peer := v.Lock(a.m.cfg.Node).GetConductor()
	if peer == "" {
		peer = v.Node(a.m.cfg.Node).GetAssigned()
	}
	hub := a.m.cfg.Hub(peer)
	if hub == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := make(chan *api.AgentUp, 64)
	a.mu.Lock()
	a.up, a.drop = up, cancel
	life := fmt.Sprint(a.life)
	a.mu.Unlock()
	// The peer where the stream ends turns to another holder.
	var turning sync.WaitGroup
	defer turning.Wait()
	defer cancel()
	turning.Go(func() {
		for {
			_, _, more, _ := a.m.cfg.Cluster.Store.Changes(a.m.cfg.Cluster.Store.Index())
			v := a.m.cfg.Cluster.Store.View()
			now := v.Lock(a.m.cfg.Node).GetConductor()
			if now == "" {
				now = v.Node(a.m.cfg.Node).GetAssigned()
			}
			if now != peer || a.m.cfg.Hub(peer) != hub {
				cancel()
				return
			}
			t := time.NewTimer(500 * time.Millisecond)
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-more:
			case <-t.C: // has the peer died?
			}
			t.Stop()
		}
	})
	hello := &api.AgentHello{NodeId: a.m.cfg.Node, Nonce: a.nonce, Incarnation: life}
	_ = hub.Attach(ctx, hello, peer, up, func(down *api.AgentDown) error {
		if a.m.cfg.Hub(peer) != hub {
			return errs.New(errs.Unreachable, "peer %s is gone", peer)
		}
		return a.obey(down)
	})
}

func (a *ramdiskAgent) obey(down *api.AgentDown) error {
	token := down.GetHello().GetToken() + down.GetCommand().GetToken() + down.GetCancel().GetToken()
	// The relay's rule.
	if token < a.m.cfg.Cluster.Store.View().Node(a.m.cfg.Node).GetLastToken() {
		return errs.New(errs.Fenced, "token %d is not current", token)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if token < a.highest {
		a.sayLocked(&api.CommandStatus{CmdId: down.GetCommand().GetCmdId(), State: api.CommandStatus_REFUSED, ErrorKind: errs.Fenced.String()})
		return nil
	}
	a.highest = token
	a.m.mu.Lock()
	a.m.tokens = append(a.m.tokens, token)
	a.m.mu.Unlock()
	if id := down.GetCancel().GetCmdId(); id != "" {
		st := a.known[id]
		switch {
		case st == nil:
			st = &api.CommandStatus{CmdId: id, State: api.CommandStatus_UNKNOWN}
		case st.GetState() == api.CommandStatus_RUNNING:
			st = &api.CommandStatus{CmdId: id, State: api.CommandStatus_CANCELLED, ErrorKind: errs.Internal.String()}
			a.known[id] = st
		}
		a.sayLocked(st)
		return nil
	}
	c := down.GetCommand()
	if c == nil {
		return nil
	}
	if st := a.known[c.GetCmdId()]; st != nil {
		a.sayLocked(st)
		return nil
	}
	a.m.mu.Lock()
	a.m.begun = append(a.m.begun, c)
	a.m.mu.Unlock()
	a.known[c.GetCmdId()] = &api.CommandStatus{CmdId: c.GetCmdId()}
	a.sayLocked(a.known[c.GetCmdId()])
	a.m.running.Go(func() { a.carryOut(c) })
	return nil
}

func (a *ramdiskAgent) sayLocked(st *api.CommandStatus) {
	select {
	case a.up <- &api.AgentUp{Msg: &api.AgentUp_Status{Status: proto.CloneOf(st)}}:
	default: // the holder asks again
	}
}

func (a *ramdiskAgent) note(st *api.CommandStatus) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if was := a.known[st.GetCmdId()]; was == nil || was.GetState() == api.CommandStatus_CANCELLED {
		return // what was cancelled has ended, and what was forgotten has no end
	}
	a.known[st.GetCmdId()] = st
	a.sayLocked(st)
}

func (a *ramdiskAgent) cancelled(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known[id].GetState() == api.CommandStatus_CANCELLED
}

func (a *ramdiskAgent) carryOut(c *api.AgentCommand) {
	if s := a.m.cfg.Script; s != nil {
		if st := s(c); st != nil {
			st.CmdId = c.GetCmdId()
			a.note(st)
			return
		}
	}
	result, err := a.perform(c)
	if err != nil {
		a.note(&api.CommandStatus{CmdId: c.GetCmdId(), State: api.CommandStatus_FAILED, Error: err.Error(), ErrorKind: errs.KindOf(err).String()})
		return
	}
	b, err := json.Marshal(result)
	if err != nil {
		panic(err)
	}
	a.note(&api.CommandStatus{CmdId: c.GetCmdId(), State: api.CommandStatus_DONE, Percent: 100, Result: b})
}

func (a *ramdiskAgent) perform(c *api.AgentCommand) (any, error) {
	switch c.GetName() {
	case agentproto.CmdInventory:
		n := a.m.cfg.Cluster.Store.View().Node(a.m.cfg.Node)
		return agentproto.Inventory{
			SystemUUID: n.GetBmc().GetSystemUuid(), BootMode: "uefi", Disks: a.m.disks(),
			Interfaces: []agentproto.Interface{{Name: "eth0", MAC: a.m.cfg.MAC, Carrier: true}},
		}, nil
	case agentproto.CmdWriteImage:
		return a.write(c)
	case agentproto.CmdEraseMetadata:
		var args agentproto.EraseArgs
		if err := json.Unmarshal(c.GetArgs(), &args); err != nil {
			return nil, errs.New(errs.Invalid, "%w", err)
		}
		disks, skipped, err := rootdisk.ToErase(args.Disks, a.m.disks())
		if err != nil {
			return nil, err
		}
		res := agentproto.EraseResult{Skipped: skipped}
		for _, d := range disks {
			a.m.holds(d, []string{})
			res.Disks = append(res.Disks, agentproto.ErasedDisk{DiskID: rootdisk.ID(d)})
		}
		return res, nil
	case agentproto.CmdCheckDrive, agentproto.CmdConfigDrive:
		var args agentproto.ConfigDriveArgs
		if err := json.Unmarshal(c.GetArgs(), &args); err != nil {
			return nil, errs.New(errs.Invalid, "%w", err)
		}
		if c.GetName() == agentproto.CmdCheckDrive {
			return agentproto.CheckDriveResult{Bytes: 1, Checksum: args.Checksum}, nil
		}
		return agentproto.ConfigDriveResult{Partition: 3, Digest: "sha256:of-the-drive", Checksum: args.Checksum}, nil
	case agentproto.CmdBootEntry:
		return agentproto.BootEntryResult{Mode: "uefi", Entry: "Boot0001"}, nil
	}
	return nil, errs.New(errs.Unsupported, "no command %s", c.GetName())
}

func (a *ramdiskAgent) write(c *api.AgentCommand) (any, error) {
	var args agentproto.WriteImageArgs
	if err := json.Unmarshal(c.GetArgs(), &args); err != nil {
		return nil, errs.New(errs.Invalid, "%w", err)
	}
	d, err := rootdisk.Match(args.Disk.DiskID, a.m.disks())
	if err != nil {
		return nil, errs.New(errs.Denied, "identity mismatch: %w", err)
	}
	if more := rootdisk.Unseen(args.Disk.Contents, d.Contents); more != "" {
		return nil, errs.New(errs.Denied, "disk %s holds what it did not hold: %s", d.Name, more)
	}
	for left := a.m.cfg.WriteTime; left > 0; left -= time.Second {
		if clock.Pause(a.on, min(left, time.Second)) != nil {
			return nil, errs.New(errs.Internal, "switched off")
		}
		if a.cancelled(c.GetCmdId()) {
			return nil, errs.New(errs.Internal, "cancelled")
		}
		a.note(&api.CommandStatus{CmdId: c.GetCmdId(), Percent: 100 - 100*left.Seconds()/a.m.cfg.WriteTime.Seconds(), DoneBytes: uint64(a.m.cfg.WriteTime - left)})
	}
	a.m.holds(d, []string{"GPT"})
	a.m.mu.Lock()
	a.m.image = args.Checksum
	a.m.mu.Unlock()
	return agentproto.WriteImageResult{ContentDigest: "d", WrittenDigest: "d", ReadDigest: args.Checksum, Disk: args.Disk.DiskID}, nil
}
