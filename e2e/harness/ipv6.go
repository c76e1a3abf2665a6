package harness

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
)

// IPv6 addresses of the lab, beside those of netns.go. They are there only
// while a case asks for them.
const (
	provNet6 = "fd77:0::" // each of them a /64
	bmcNet6  = "fd77:1::"
	mgmtNet6 = "fd77:2::"
)

// ProvAddr6 is the address of peer i on the provisioning network.
func ProvAddr6(i int) string { return fmt.Sprintf("%s1%d", provNet6, i) }

// MgmtAddr6 is the address of peer i on the management network.
func MgmtAddr6(i int) string { return fmt.Sprintf("%s1%d", mgmtNet6, i) }

// BMCAddr6 is the address of the BMC of VM i.
func BMCAddr6(i int) string { return fmt.Sprintf("%s1:%d", bmcNet6, i) }

// addr6 are all IPv6 addresses by host and device.
func addr6() map[[2]string][]string {
	all := map[[2]string][]string{
		{"www", "prov"}: {provNet6 + "5"}, // a router's place is not taken
		{"bmc", "bmc"}:  {bmcNet6 + "100"},
	}
	for i := 1; i <= MaxVMs; i++ {
		k := [2]string{"bmc", "bmc"}
		all[k] = append(all[k], BMCAddr6(i))
	}
	for i := 1; i <= Peers; i++ {
		p := "p" + strconv.Itoa(i)
		all[[2]string{p, "prov"}] = []string{ProvAddr6(i)}
		all[[2]string{p, "mgmt"}] = []string{MgmtAddr6(i)}
		all[[2]string{p, "bmc"}] = []string{fmt.Sprintf("%s1%d", bmcNet6, i)}
	}
	return all
}

// UseIPv6 makes the lab one where peers, BMCs and agents have IPv6 only: the
// management and the BMC network lose their IPv4 addresses, and peers and BMCs
// that are started from now on are at IPv6 addresses. The provisioning network
// keeps IPv4 for the firmware. back undoes it.
func (l *Lab) UseIPv6(ctx context.Context) (back func(context.Context) error, err error) {
	for at, addrs := range addr6() {
		for _, a := range addrs {
			if err := l.ip(ctx, at[0], "addr add "+a+"/64 dev "+at[1]+" nodad"); err != nil {
				return nil, err
			}
		}
	}
	if err := l.ip(ctx, "bmc", "-4 addr flush dev bmc"); err != nil {
		return nil, err
	}
	for i := 1; i <= Peers; i++ {
		if err := l.ip(ctx, "p"+strconv.Itoa(i), "-4 addr flush dev mgmt", "-4 addr flush dev bmc"); err != nil {
			return nil, err
		}
	}
	l.v6 = true
	return l.backToIPv4, nil
}

func (l *Lab) backToIPv4(ctx context.Context) error {
	l.v6 = false
	var all []error
	for at, addrs := range addr6() {
		for _, a := range addrs {
			all = append(all, l.ip(ctx, at[0], "addr del "+a+"/64 dev "+at[1]))
		}
	}
	all = append(all, l.ip(ctx, "bmc", "addr add 10.77.1.100/24 dev bmc"))
	for i := 1; i <= MaxVMs; i++ {
		all = append(all, l.ip(ctx, "bmc", "addr add "+BMCAddr(i)+"/24 dev bmc"))
	}
	for i := 1; i <= Peers; i++ {
		all = append(all, l.ip(ctx, "p"+strconv.Itoa(i), "addr add "+MgmtAddr(i)+"/24 dev mgmt", "addr add "+PeerBMCAddr(i)+"/24 dev bmc"))
	}
	return errors.Join(all...)
}

// Router6 starts an IPv6 router on the provisioning network that advertises
// its prefix, and is no way out. The caller kills it. See PlugForeign, whose
// host it runs on.
func (l *Lab) Router6(ctx context.Context) (*Proc, error) {
	if err := l.ip(ctx, "dhcp", "addr replace "+provNet6+"7/64 dev prov nodad"); err != nil {
		return nil, err
	}
	return l.Start(Cmd{Name: "dnsmasq for IPv6", NS: l.NS("dhcp"), Log: filepath.Join(l.Dir, "router6.log"), Args: []string{
		"dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=prov", "--bind-interfaces", "--user=root", "--pid-file=",
		"--enable-ra", "--dhcp-range=" + provNet6 + ",ra-only,64", "--ra-param=prov,10,0",
	}})
}

// mgmtAddr, agentAddr and bmcAddr are where peers and BMCs are at the moment.
func (l *Lab) mgmtAddr(i int) string { return l.either(MgmtAddr6(i), MgmtAddr(i)) }

func (l *Lab) agentAddr(i int) string { return l.either(ProvAddr6(i), ProvAddr(i)) }

func (l *Lab) bmcAddr(i int) string { return l.either(BMCAddr6(i), BMCAddr(i)) }

func (l *Lab) either(six, four string) string {
	if l.v6 {
		return six
	}
	return four
}
