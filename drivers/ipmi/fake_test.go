package ipmi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/drivers"
)

// The test binary is the scripted ipmitool as well: it is one when it is
// started under that name. It speaks to fakeBMC in datagrams that are RMCP on
// the outside, as those of ipmitool are, and prints what it is told to.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "ipmitool" {
		// Not os.Exit: under the race detector that takes a second.
		syscall.Exit(fakeTool(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// patience is longer than any test waits but the one that wants to see it.
const patience = 4 * time.Second

const secret = "S3cret of 20 bytes!!"

// The headers of a login and of a command inside a session.
var (
	loginHeader   = []byte{6, 0, 0xff, 7, 6, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	commandHeader = []byte{6, 0, 0xff, 7, 6, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
)

// asked is what the scripted ipmitool sends.
type asked struct {
	Argv []string
	Pass string
	Env  []string
}

// told is what it is to print, and to exit with.
type told struct {
	Out, Err string
	Exit     int
	Console  bool // Out is followed by what the BMC sends, until the input ends
}

// noise is what the real one prints with -v, whatever comes of the command.
const noise = `Loading IANA PEN Registry...
Get HPM.x Capabilities request failed, compcode = d4
Running Get VSO Capabilities my_addr 0x20, transit 0, target 0x20
Invalid completion code received: Invalid command
Invalid completion code received: Insufficient privilege level
Discovered IPMB address 0x0
`

const noSession = "Error: Unable to establish IPMI v2 / RMCP+ session\n"

func fakeTool(argv []string) int {
	option := func(name string) string {
		if i := slices.Index(argv, name); i >= 0 && i+1 < len(argv) {
			return argv[i+1]
		}
		return ""
	}
	conn, err := net.Dial("udp", net.JoinHostPort(option("-H"), option("-p")))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer conn.Close()
	body, err := json.Marshal(asked{Argv: argv, Pass: os.Getenv("IPMI_PASSWORD"), Env: os.Environ()})
	if err != nil {
		return 1
	}
	for _, phase := range []struct {
		header []byte
		silent string
	}{{loginHeader, noSession}, {commandHeader, "No valid response received\n"}} {
		if _, err := conn.Write(append(slices.Clone(phase.header), body...)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		// With -N 5 -R 1 ipmitool gives up after 10 s; tests need not wait so
		// long.
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		buf := make([]byte, 65536)
		n, err := conn.Read(buf)
		var say told
		if err != nil || n < 4 || json.Unmarshal(buf[4:n], &say) != nil {
			fmt.Fprint(os.Stderr, noise, phase.silent)
			return 1
		}
		if say.Console {
			return fakeConsole(conn, say)
		}
		if string(phase.header) == string(commandHeader) || say.Exit != 0 {
			fmt.Print(say.Out)
			fmt.Fprint(os.Stderr, noise, say.Err)
			return say.Exit
		}
	}
	return 1
}

// endConsole is what gives a console's session back.
const endConsole = "end of the console"

// fakeConsole is `sol activate` once the BMC has agreed: it has no terminal, and
// ends with its input.
func fakeConsole(conn net.Conn, say told) int {
	fmt.Fprint(os.Stderr, noise, "tcgetattr: Inappropriate ioctl for device\n")
	fmt.Print(say.Out)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_, _ = conn.Write(append(slices.Clone(commandHeader), endConsole...))
		syscall.Exit(0)
	}()
	_ = conn.SetReadDeadline(time.Time{})
	buf := make([]byte, 65536)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return 1
		}
		if text := string(buf[4:n]); text == endConsole {
			fmt.Fprint(os.Stderr, "SOL session closed by BMC\n")
			return 1
		}
		_, _ = os.Stdout.Write(buf[4:n])
	}
}

// fakeBMC answers the scripted ipmitool.
type fakeBMC struct {
	t    *testing.T
	conn net.PacketConn
	path string // of the scripted ipmitool

	mu      sync.Mutex
	power   string
	boot    string
	led     bool
	events  string // as `-c sel list` prints them
	changes int
	logins  int
	runs    []asked
	silent  string // "", "all", "command": what is not answered
	rubbish bool
	answers map[string]told // by command; before the usual answers
	console net.Addr        // who has the console's session
	evicted int             // sessions of the console that were ended for another
}

// print sends a text to who has the console.
func (b *fakeBMC) print(text string) {
	b.mu.Lock()
	to := b.console
	b.mu.Unlock()
	if to != nil {
		_, _ = b.conn.WriteTo(append(slices.Clone(loginHeader[:4]), text...), to)
	}
}

func newBMC(t *testing.T) *fakeBMC {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &fakeBMC{t: t, conn: conn, power: "off", boot: "8000000000", events: read(t, "sel_list.txt"), path: filepath.Join(t.TempDir(), "ipmitool"), answers: map[string]told{}}
	if err := os.Symlink(self, b.path); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(b.serve)
	t.Cleanup(func() { conn.Close(); wg.Wait() })
	return b
}

func (b *fakeBMC) info() drivers.Info {
	host, port, err := net.SplitHostPort(b.conn.LocalAddr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	return drivers.Info{"ipmi_address": host, "ipmi_port": json.Number(port), "ipmi_username": "admin", "ipmi_password": secret}
}

func (b *fakeBMC) target() drivers.Target {
	return drivers.Target{NodeID: "n1", Driver: "ipmi", Info: b.info()}
}

func (b *fakeBMC) with(key string, value any) drivers.Target {
	t := b.target()
	t.Info = maps.Clone(t.Info)
	t.Info[key] = value
	return t
}

func (b *fakeBMC) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *fakeBMC) get(f func() int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return f()
}

func (b *fakeBMC) serve() {
	buf := make([]byte, 65536)
	for {
		n, from, err := b.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if n > len(loginHeader) && string(buf[len(loginHeader):n]) == endConsole {
			b.set(func() {
				if b.console != nil && b.console.String() == from.String() {
					b.console = nil
				}
			})
			continue
		}
		var in asked
		if n < len(loginHeader) || json.Unmarshal(buf[len(loginHeader):n], &in) != nil {
			continue
		}
		b.mu.Lock()
		say, mute := b.answer(in, buf[5] == 0xc0)
		if say.Console {
			b.console = from
		}
		rubbish := b.rubbish
		b.mu.Unlock()
		if mute {
			continue
		}
		body, err := json.Marshal(say)
		if err != nil {
			return
		}
		out := append(slices.Clone(loginHeader[:4]), body...)
		if rubbish {
			out = []byte("220 mail.example.org ESMTP")
		}
		_, _ = b.conn.WriteTo(out, from)
	}
}

// answer is called with mu held.
func (b *fakeBMC) answer(in asked, command bool) (say told, mute bool) {
	if b.silent == "all" {
		return told{}, true
	}
	if !command {
		b.runs = append(b.runs, in)
		b.logins++
		if in.Pass != secret {
			return told{Out: "> RAKP 2 HMAC is invalid\n", Err: noSession, Exit: 1}, false
		}
		if a, ok := b.answers["login"]; ok {
			return a, false
		}
		return told{}, false
	}
	// Options end with "-U admin".
	words := in.Argv[slices.Index(in.Argv, "-U")+2:]
	text := strings.Join(words, " ")
	if words[0] == "chassis" && (words[1] == "bootdev" || words[1] == "identify" || (words[1] == "power" && words[2] != "status")) || text == "sel clear" {
		b.changes++
	}
	if b.silent == "command" {
		return told{}, true
	}
	if a, ok := b.answers[text]; ok {
		return a, false
	}
	switch {
	case text == "chassis power status":
		return told{Out: "Chassis Power is " + b.power + "\n"}, false
	case text == "chassis power on":
		b.power = "on"
		return told{Out: "Chassis Power Control: Up/On\n"}, false
	case text == "chassis power off":
		b.power = "off"
		return told{Out: "Chassis Power Control: Down/Off\n"}, false
	case text == "chassis power soft":
		return told{Out: "Chassis Power Control: Soft\n"}, false
	case words[1] == "bootdev":
		data1 := 0x80
		if strings.Contains(text, "persistent") {
			data1 |= 0x40
		}
		if strings.Contains(text, "efiboot") {
			data1 |= 0x20
		}
		b.boot = fmt.Sprintf("%02x", data1) + map[string]string{"none": "00000000", "pxe": "04000000", "disk": "08000000", "cdrom": "14000000"}[words[2]]
		return told{Out: "Set Boot Device to " + words[2] + "\n"}, false
	case text == "chassis bootparam get 5":
		return told{Out: "Boot parameter version: 1\nBoot parameter data: " + b.boot + "\n"}, false
	case text == "raw 0x06 0x37":
		return told{Out: " 44 45 4c 4c 35 00 10 4d 80 32 b4 c0 4f 4a 33 32\n"}, false
	case text == "mc info":
		return told{Out: read(b.t, "mc_info.ipmi_sim.txt")}, false
	case text == "lan print":
		return told{Out: read(b.t, "lan_print.address.txt")}, false
	case text == "chassis power diag":
		return told{Out: "Chassis Power Control: Diag\n"}, false
	case text == "chassis identify force", text == "chassis identify 0":
		b.led = words[2] == "force"
		return told{Out: "Chassis identify interval: " + map[bool]string{true: "indefinite", false: "off"}[b.led] + "\n"}, false
	case text == "raw 0x00 0x01":
		return told{Out: map[bool]string{true: " 01 00 60\n", false: " 01 00 40\n"}[b.led]}, false
	case text == "sdr info":
		return told{Out: "SDR Version                         : 0x51\nRecord Count                        : 5\n"}, false
	case text == "sel info":
		return told{Out: "SEL Information\nEntries          : 3\n"}, false
	case text == "sdr list":
		return told{Out: read(b.t, "sdr_list.txt")}, false
	case text == "-c sel list":
		return told{Out: b.events}, false
	case text == "sel clear":
		b.events = "1,11/22/26,10:00:00 UTC,Event Logging Disabled #0x07,Log area reset/cleared,Asserted\n"
		return told{Out: "Clearing SEL.  Please allow a few seconds to erase.\n"}, false
	case text == "sol activate" && b.console != nil:
		return told{Err: "Info: SOL payload already active on another session\n", Exit: 1}, false
	case text == "sol activate":
		return told{Out: "[SOL Session operational.  Use ~? for help]\n", Console: true}, false
	case text == "sol deactivate" && b.console == nil:
		return told{Err: "Info: SOL payload already de-activated\n", Exit: 1}, false
	case text == "sol deactivate":
		b.console = nil
		b.evicted++
		return told{}, false
	case text == "fru print":
		return told{Out: read(b.t, "fru_all.txt")}, false
	case text == "fru print 0":
		return told{Out: read(b.t, "fru.product.txt")}, false
	}
	return told{Err: "Invalid command: " + text + "\n", Exit: 1}, false
}

func read(t *testing.T, name string) string {
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Error(err)
	}
	return string(data)
}
