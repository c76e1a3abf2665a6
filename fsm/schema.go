package fsm

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	"github.com/hashicorp/go-memdb"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/node"
)

// Names of tables, as they appear in Change.Table.
const (
	TableNodes       = "nodes"       // key: node id
	TablePorts       = "ports"       // key: port id
	TableNetworks    = "networks"    // key: name
	TableAddresses   = "addresses"   // key: network "/" MAC
	TableFlows       = "flows"       // key: node id
	TableLocks       = "locks"       // key: node id
	TableLeases      = "leases"      // key: lease id
	TableIntents     = "intents"     // key: node id
	TableMembers     = "members"     // key: member id
	TableInventories = "inventories" // key: node id
	TableSettings    = "settings"    // key: "settings"
	TableKeys        = "keys"        // key: "keys"
	TableReach       = "reach"       // key: member "/" subnet
	TableArtifacts   = "artifacts"   // key: digest
	TableRamdisks    = "ramdisks"    // key: arch "/" purpose
	TableSpentKeys   = "spent_keys"  // key: id of the shared key

	tableTokens   = "tokens"
	tableFormer   = "former"
	tableRequests = "requests" // not of memdb, see answers.go
	tableHistory  = "history"
	tableHead     = "head"
)

// Names of indexes. Only "id" is unique to memdb: the uniqueness of names,
// MACs and addresses is kept by the operations, because a unique memdb index
// would silently drop the other record when two swap a value in one command.
const (
	byID        = "id"
	byName      = "name"
	byBMC       = "bmc"
	byClaim     = "claim"
	byNode      = "node"
	byMAC       = "mac"
	byNetwork   = "network"
	byIP        = "ip"
	byRunning   = "running"
	byLease     = "lease"
	byConductor = "conductor"
	byLive      = "live"
	byAlias     = "alias"
	byPhoneHome = "phone_home"
)

// only is the key of tables that hold one record.
const only = "only"

// table is a kind of record: where it is kept and how it is keyed.
type table[R proto.Message] struct {
	name    string
	kind    byte // of its frames in a snapshot; never reused
	watched bool // its changes are reported by Changes
	key     func(R) string
}

// The tables of plain records. History, audit and answers are kept apart, see
// history.go and answers.go.
var (
	nodes       = &table[*api.Node]{TableNodes, 2, true, (*api.Node).GetId}
	ports       = &table[*api.Port]{TablePorts, 3, true, (*api.Port).GetId}
	networks    = &table[*api.Network]{TableNetworks, 4, true, (*api.Network).GetName}
	addresses   = &table[*api.Address]{TableAddresses, 5, true, func(a *api.Address) string { return addressKey(a.GetNetwork(), a.GetMac()) }}
	flows       = &table[*api.Flow]{TableFlows, 6, true, (*api.Flow).GetNodeId}
	locks       = &table[*api.Lock]{TableLocks, 7, true, (*api.Lock).GetNodeId}
	leases      = &table[*api.Lease]{TableLeases, 8, true, (*api.Lease).GetId}
	intents     = &table[*api.Intent]{TableIntents, 9, true, (*api.Intent).GetNodeId}
	members     = &table[*api.Member]{TableMembers, 10, true, (*api.Member).GetId}
	inventories = &table[*api.Inventory]{TableInventories, 11, true, (*api.Inventory).GetNodeId}
	settings    = &table[*api.Settings]{TableSettings, 12, true, func(*api.Settings) string { return TableSettings }}
	tokens      = &table[*api.JoinToken]{tableTokens, 13, false, (*api.JoinToken).GetId}
	artifacts   = &table[*api.Artifact]{TableArtifacts, 40, true, (*api.Artifact).GetDigest}
	ramdisks    = &table[*api.Ramdisk]{TableRamdisks, 41, true, func(r *api.Ramdisk) string { return ramdiskKey(r.GetArch(), r.GetPurpose()) }}
	keys        = &table[*api.Keys]{TableKeys, 20, true, func(*api.Keys) string { return TableKeys }}
	former      = &table[*api.FormerMember]{tableFormer, 21, false, formerKey}
	spentKeys   = &table[*api.SpentKey]{TableSpentKeys, 22, true, (*api.SpentKey).GetId}
	reaches     = &table[*api.Reach]{TableReach, 30, true, reachKey}
)

// anyTable is a table without its type, for what treats all alike.
type anyTable interface {
	tableName() string
	frameKind() byte
	records(txn *memdb.Txn) iter.Seq2[string, proto.Message]
	empty() proto.Message
	keyOf(m proto.Message) string
}

// tables are in order of kind: the order of snapshots and digests.
var tables = slices.SortedFunc(slices.Values([]anyTable{
	nodes, ports, networks, addresses, flows, locks, leases, intents, members, inventories, settings, tokens, answers,
	artifacts, ramdisks, keys, former, spentKeys, reaches,
}), func(a, b anyTable) int { return cmp.Compare(a.frameKind(), b.frameKind()) })

func (t *table[R]) tableName() string            { return t.name }
func (t *table[R]) frameKind() byte              { return t.kind }
func (t *table[R]) keyOf(m proto.Message) string { return t.key(m.(R)) }

func (t *table[R]) empty() proto.Message {
	var zero R
	return zero.ProtoReflect().New().Interface()
}

func (t *table[R]) records(txn *memdb.Txn) iter.Seq2[string, proto.Message] {
	return func(yield func(string, proto.Message) bool) {
		for r := range scan(txn, t, byID) {
			if !yield(t.key(r), r) {
				return
			}
		}
	}
}

// Frames of a snapshot that belong to no plain table.
const (
	kindTrailer byte = 0
	kindHead    byte = 1
	kindAudit   byte = 15
	kindHistory byte = 16
)

func addressKey(network, mac string) string { return network + "/" + mac }

// be64 makes numbers sort as keys.
func be64(n uint64) string {
	return string([]byte{byte(n >> 56), byte(n >> 48), byte(n >> 40), byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// index is a memdb indexer over a string that a function takes from a record.
// Keys end in NUL, so that one is never a prefix of another; identifiers
// never hold NUL (check.go).
type index[R any] func(R) (key string, ok bool)

func (ix index[R]) FromObject(raw any) (bool, []byte, error) {
	key, ok := ix(raw.(R))
	if !ok {
		return false, nil, nil
	}
	return true, keyBytes(key), nil
}

// FromArgs implements memdb.Indexer.
func (ix index[R]) FromArgs(args ...any) ([]byte, error) { return keyOfArgs(args) }

// indexes is an index with several keys of each record.
type indexes[R any] func(R) []string

// FromObject implements memdb.MultiIndexer.
func (ix indexes[R]) FromObject(raw any) (bool, [][]byte, error) {
	keys := ix(raw.(R))
	out := make([][]byte, len(keys))
	for i, k := range keys {
		out[i] = keyBytes(k)
	}
	return len(out) > 0, out, nil
}

// FromArgs implements memdb.Indexer.
func (ix indexes[R]) FromArgs(args ...any) ([]byte, error) { return keyOfArgs(args) }

func keyBytes(key string) []byte {
	b := make([]byte, 0, len(key)+1+37) // memdb appends the primary key, mostly a UUID
	return append(append(b, key...), 0)
}

func keyOfArgs(args []any) ([]byte, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("an index takes one argument, got %d", len(args))
	}
	key, ok := args[0].(string)
	if !ok {
		return nil, fmt.Errorf("an index takes a string, got %T", args[0])
	}
	b := make([]byte, 0, len(key)+1)
	return append(append(b, key...), 0), nil
}

func always[R any](f func(R) string) index[R] {
	return func(r R) (string, bool) { return f(r), true }
}

func unlessEmpty[R any](f func(R) string) index[R] {
	return func(r R) (string, bool) { k := f(r); return k, k != "" }
}

func tableSchema[R any](name string, key func(R) string, more map[string]memdb.Indexer) *memdb.TableSchema {
	s := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
		byID: {Name: byID, Unique: true, Indexer: always(key)},
	}}
	for ixName, ix := range more {
		s.Indexes[ixName] = &memdb.IndexSchema{Name: ixName, AllowMissing: true, Indexer: ix}
	}
	return s
}

func newSchema() *memdb.DBSchema {
	db := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, s := range []*memdb.TableSchema{
		tableSchema(nodes.name, nodes.key, map[string]memdb.Indexer{
			byName:  unlessEmpty((*api.Node).GetName),
			byBMC:   unlessEmpty(func(n *api.Node) string { return n.GetBmc().GetBmcKey() }),
			byClaim: indexes[*api.Node](func(n *api.Node) []string { return node.Claims(n.GetBmc()) }),

			byPhoneHome: unlessEmpty(nodePhoneHome),
		}),
		tableSchema(ports.name, ports.key, map[string]memdb.Indexer{
			byNode: always((*api.Port).GetNodeId),
			byMAC:  always((*api.Port).GetAddress),
		}),
		tableSchema(networks.name, networks.key, nil),
		tableSchema(addresses.name, addresses.key, map[string]memdb.Indexer{
			byIP:      always(func(a *api.Address) string { return addressKey(a.GetNetwork(), a.GetIp()) }),
			byMAC:     always((*api.Address).GetMac),
			byNetwork: always((*api.Address).GetNetwork),
		}),
		tableSchema(flows.name, flows.key, map[string]memdb.Indexer{
			byRunning:   index[*api.Flow](func(f *api.Flow) (string, bool) { return "", f.GetStatus() == api.FlowStatus_FLOW_RUNNING }),
			byPhoneHome: unlessEmpty(flowPhoneHome),
		}),
		tableSchema(locks.name, locks.key, map[string]memdb.Indexer{
			byLease: always((*api.Lock).GetLeaseId),
		}),
		tableSchema(leases.name, leases.key, map[string]memdb.Indexer{
			byConductor: always((*api.Lease).GetConductor),
			byLive: index[*api.Lease](func(l *api.Lease) (string, bool) {
				return l.GetConductor(), l.GetState() == api.Lease_LIVE
			}),
		}),
		tableSchema(intents.name, intents.key, nil),
		tableSchema(members.name, members.key, nil),
		tableSchema(inventories.name, inventories.key, nil),
		tableSchema(settings.name, settings.key, nil),
		tableSchema(keys.name, keys.key, nil),
		tableSchema(former.name, former.key, nil),
		tableSchema(spentKeys.name, spentKeys.key, nil),
		tableSchema(reaches.name, reaches.key, nil),
		tableSchema(tokens.name, tokens.key, nil),
		tableSchema(artifacts.name, artifacts.key, map[string]memdb.Indexer{
			byAlias: unlessEmpty((*api.Artifact).GetAlias),
		}),
		tableSchema(ramdisks.name, ramdisks.key, nil),
		tableSchema(tableHistory, func(p *past) string { return p.node }, nil),
		tableSchema(tableHead, func(*head) string { return only }, nil),
	} {
		db.Tables[s.Name] = s
	}
	return db
}
