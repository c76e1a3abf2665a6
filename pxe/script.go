package pxe

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
)

// Paths of the HTTP boot service.
const (
	pathBoot      = "/boot/"
	pathKernel    = "/ramdisk/vmlinuz"
	pathInitramfs = "/ramdisk/initramfs.img"
	pathIPXE      = "/ipxe/"
)

// initrdName is the name under which the EFI stub of the kernel finds the
// initramfs: it must be the same on the kernel line and on the initrd command.
const initrdName = "initramfs.img"

// Limits of iPXE commands, in milliseconds without progress. A peer that is
// gone costs fetchTimeout once in each round.
const fetchTimeout = 10000

// maxLinePeers bounds the peers named on the kernel line and in the script:
// kernels take 2 047 characters.
const maxLinePeers = 16

// BaseKernelArgs stand before the configured arguments. The last console is
// /dev/console: the serial one, which a BMC can show.
var BaseKernelArgs = []string{"console=tty0", "console=ttyS0"}

// LineConfig is what scripts hold besides the record. It must be the same on
// all peers.
type LineConfig struct {
	CADigest   string   // lower-case hex SHA-256 of the CA certificate
	KernelArgs []string // checked by Config.Validate
}

// maxLine is the longest kernel line that kernels take.
const maxLine = 2047 - len("initrd="+initrdName+" ")

// KernelLine gives the arguments of the ramdisk's kernel, without those that
// depend on how it was loaded: Ironring's own, the site's, the node's. Where
// they do not fit, the last peers of the list are left out.
func (r BootRecord) KernelLine(c LineConfig) string {
	for n := len(r.AgentPeers); ; n-- {
		args := []string{
			agentproto.LineNode + "=" + r.NodeID,
			agentproto.LineNonce + "=" + r.Nonce,
			agentproto.LinePeers + "=" + strings.Join(r.AgentPeers[:n], ","),
			agentproto.LineCA + "=" + c.CADigest,
		}
		if r.MAC != "" { // a boot medium may leave it to its network data
			args = append(args, agentproto.LineBootIF+"=01-"+strings.ReplaceAll(r.MAC, ":", "-"))
		}
		line := strings.Join(slices.Concat(args, c.KernelArgs, r.KernelArgs), " ")
		if len(line) <= maxLine || n <= 1 {
			return line
		}
	}
}

// Script writes the iPXE script of a record.
//
// The script for a ramdisk tries the peer that answered DHCP at once, then the
// other peers in the order of this MAC, then waits 1, 2, 4, 8, 8 ... seconds,
// asks DHCP again (which another peer may answer, or which may say that there
// is nothing to boot any more) and starts over. Beside a foreign DHCP server
// iPXE keeps what a peer said apart, in its block proxydhcp. The script uses only commands that
// iPXE of 2019 has, which knows neither random numbers nor arithmetic.
func (r BootRecord) Script(c LineConfig) []byte {
	var b bytes.Buffer
	b.WriteString("#!ipxe\n")
	if r.Target != api.BootTarget_BOOT_RAMDISK {
		// A status other than 0 makes UEFI firmware go on to the next boot
		// entry; after 0 it would stop in its menu.
		b.WriteString("echo Nothing to boot from the network, going on to the local disk\nexit 1\n")
		return b.Bytes()
	}
	fmt.Fprintf(&b, "# node %s\n", r.NodeID)
	fmt.Fprintf(&b, "set line %s\n", r.KernelLine(c))
	// A script that this one chained to keeps the wait that it had come to.
	b.WriteString("isset ${wait} || set wait 1\n:again\n" +
		"isset ${proxydhcp/next-server} && set srv ${proxydhcp/next-server} || set srv ${next-server}\n")
	r.attempts(&b)
	b.WriteString("echo No peer gave the ramdisk, waiting ${wait} s\n" +
		"sleep ${wait}\n" +
		"iseq ${wait} 4 && set wait 8 ||\n" +
		"iseq ${wait} 2 && set wait 4 ||\n" +
		"iseq ${wait} 1 && set wait 2 ||\n" +
		"dhcp || goto again\n" +
		"isset ${proxydhcp/filename} && set script ${proxydhcp/filename} || set script ${filename}\n")
	fmt.Fprintf(&b, "chain --timeout %d --autofree --replace ${script} || goto again\n", fetchTimeout)
	b.WriteString(":fetch\nimgfree\n")
	fmt.Fprintf(&b, "kernel --timeout %d ${base}%s initrd=%s ${line} || goto ${next}\n", fetchTimeout, r.kernelPath(), initrdName)
	fmt.Fprintf(&b, "initrd --timeout %d --name %s ${base}%s || goto ${next}\n", fetchTimeout, initrdName, r.initramfsPath())
	b.WriteString("boot || goto ${next}\n")
	return b.Bytes()
}

// attempts writes one attempt at each peer; :rest follows the last.
func (r BootRecord) attempts(b *bytes.Buffer) {
	if r.BootPort != 0 {
		fmt.Fprintf(b, "set base http://${srv}:%d\nset next try1\ngoto fetch\n", r.BootPort)
	}
	for i, p := range r.BootPeers {
		next := fmt.Sprintf("try%d", i+2)
		if i == len(r.BootPeers)-1 {
			next = "rest"
		}
		fmt.Fprintf(b, ":try%d\n", i+1)
		if host, port, _ := validAddress(p); port == r.BootPort {
			fmt.Fprintf(b, "iseq ${srv} %s && goto %s ||\n", host, next) // was the first
		}
		fmt.Fprintf(b, "set base http://%s\nset next %s\ngoto fetch\n", p, next)
	}
	b.WriteString(":rest\n")
}
