package config

import (
	"fmt"
	"os"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/ironring/ironring/internal/errs"
)

// Config is the configuration of one peer.
type Config struct {
	DataDir   string    `yaml:"data_dir"` // the only key without a default
	ID        string    `yaml:"id"`       // member id, default the host's name
	Listen    Listen    `yaml:"listen"`
	Socket    string    `yaml:"socket"` // unix socket of the CLI, default data_dir/ironring.sock
	Advertise Advertise `yaml:"advertise"`
	Group     string    `yaml:"group"`   // conductor group, "" is the default group
	Zone      string    `yaml:"zone"`    // failure domain, free text
	Weight    uint32    `yaml:"weight"`  // share of the ring, default 1
	Drivers   []string  `yaml:"drivers"` // default ipmi and redfish
	Raft      Raft      `yaml:"raft"`
	Profile   string    `yaml:"profile"` // lease timing of a new cluster: default, lan
	BMC       BMC       `yaml:"bmc"`
	Boot      Boot      `yaml:"boot"`
	Artifacts Artifacts `yaml:"artifacts"`
	Log       Log       `yaml:"log"`

	// How the peers of one file form their cluster; see Forms.
	ClusterID string   `yaml:"cluster_id"` // its id
	Join      []string `yaml:"join"`       // cluster addresses of the peers: "host" or "host:port"
	Expect    int      `yaml:"expect"`     // so many form it, default all of join
	KeyFile   string   `yaml:"key_file"`   // shared secret, mode 0600

	idGiven bool // the file has an id
}

// GivenID is the id of the file; "" when ID was made from the host's name. A
// peer that is a member already keeps the id it joined with.
func (c *Config) GivenID() string {
	if c.idGiven {
		return c.ID
	}
	return ""
}

// Listen holds the addresses to listen on: "host:port", ":port" or a host
// alone. Defaults are the ports of internal/ports on 0.0.0.0. Metrics has no
// default: without it they are not served.
type Listen struct {
	Cluster string `yaml:"cluster"`
	Gossip  string `yaml:"gossip"`
	API     string `yaml:"api"`
	Agent   string `yaml:"agent"`
	Boot    string `yaml:"boot"`
	TFTP    string `yaml:"tftp"`
	DHCP    string `yaml:"dhcp"`
	PXE     string `yaml:"pxe"` // second questions of proxy DHCP
	Metrics string `yaml:"metrics"`
}

// Advertise holds the addresses that others are told. The default of each is
// its listen address; where that is a wildcard, Host takes the host's place,
// and without Host the first global unicast address of this host.
type Advertise struct {
	Host    string `yaml:"host"`
	Cluster string `yaml:"cluster"`
	Gossip  string `yaml:"gossip"`
	API     string `yaml:"api"`
	Agent   string `yaml:"agent"`
	Boot    string `yaml:"boot"`
}

// Raft holds Raft's timeouts; they must be the same on all peers.
type Raft struct {
	Heartbeat   time.Duration `yaml:"heartbeat"`    // default 500ms
	Election    time.Duration `yaml:"election"`     // default 500ms
	LeaderLease time.Duration `yaml:"leader_lease"` // default 250ms
}

// BMC says how BMCs are called.
type BMC struct {
	// ReadTimeout is the longest that a question may take, all of its requests
	// together; default 45s. Verifying a node asks a silent BMC three times.
	ReadTimeout time.Duration `yaml:"read_timeout"`
}

// Boot configures the boot services.
type Boot struct {
	RamdiskDir string `yaml:"ramdisk_dir"` // vmlinuz and initramfs.img, default data_dir/ramdisk
	IPXEDir    string `yaml:"ipxe_dir"`    // default /usr/lib/ipxe
	DHCP       string `yaml:"dhcp"`        // full, proxy, off; a network may have less
	Interface  string `yaml:"interface"`   // NIC that DHCP listens on, "": all
	KernelArgs string `yaml:"kernel_args"` // added to the ramdisk's kernel line
	MediaShim  string `yaml:"media_shim"`  // loader of virtual media, default Debian's signed shim; "none": without
	MediaGRUB  string `yaml:"media_grub"`  // started by it, default Debian's signed GRUB for CDs
}

// Artifacts configures the files that this peer keeps under
// data_dir/artifacts.
type Artifacts struct {
	// DiskPercent is how full the disk may get; artifacts stop there.
	DiskPercent int `yaml:"disk_percent"` // default 80
}

// Log configures the log on standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json
}

// Values of Config.Profile, Boot.DHCP and Log.Format.
const (
	ProfileDefault = "default"
	ProfileLAN     = "lan"
	DHCPFull       = "full"
	DHCPProxy      = "proxy"
	DHCPOff        = "off"
	NoShim         = "none" // Boot.MediaShim
	FormatText     = "text"
	FormatJSON     = "json"
)

// Load reads and completes a configuration file.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read configuration: %w", err)
	}
	cfg, err := Parse(data, System())
	if err != nil {
		return nil, errs.New(errs.Invalid, "configuration %s: %w", path, err)
	}
	return cfg, nil
}

// Parse decodes YAML, fills in the defaults from what host says, and checks
// every value.
func Parse(data []byte, host Host) (*Config, error) {
	var cfg Config
	if err := decode(data, &cfg); err != nil {
		return nil, err
	}
	if err := cfg.complete(host); err != nil {
		return nil, err
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &cfg, nil
}

// Defaults is the configuration of a host whose file has nothing but data_dir,
// for people to begin with; data_dir itself is an example.
func Defaults(host Host) ([]byte, error) {
	cfg, err := Parse([]byte("data_dir: /var/lib/ironring\n"), host)
	if err != nil {
		return nil, err
	}
	out, err := cfg.YAML()
	if err != nil {
		return nil, err
	}
	return append([]byte("# data_dir has no default: this one is an example. Every other key may be left out.\n"), out...), nil
}

// YAML is the configuration with every default written out.
func (c *Config) YAML() ([]byte, error) {
	out, err := yaml.MarshalWithOptions(c, yaml.Indent(2), yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("print configuration: %w", err)
	}
	return out, nil
}
