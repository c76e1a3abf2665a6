package pxe

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/benchtest"
)

// benchServer runs a boot service on loopback for machines known by number.
func benchServer(b *testing.B, machines int, dir string) *Server {
	b.Helper()
	w := emptyWorld(b, &api.Network{
		Name: provisioning, Cidr: "127.77.0.0/16", RangeStart: "127.77.1.0", RangeEnd: "127.77.200.0",
	}, loopPeer+":7484")
	for i := range machines {
		w.machine(fmt.Sprintf("%08x-1111-4111-8111-111111111111", i), benchMAC(i), api.State_ENROLL, api.BootTarget_BOOT_RAMDISK, true)
		w.address(benchMAC(i))
	}
	srv, err := New(Config{
		Store: w.store, Self: "p1", CADigest: digest, RamdiskDir: dir, IPXEDir: dir, Observe: func(*api.JournalEvent) {},
		DHCPListen: loopPeer + ":0", TFTPListen: loopPeer + ":0", HTTPListen: loopPeer + ":0",
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return srv
}

func benchMAC(i int) string {
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", byte(i>>16), byte(i>>8), byte(i))
}

// benchFile is a file of a size in a new directory.
func benchFile(b *testing.B, size int, names ...string) string {
	b.Helper()
	dir := b.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), content(name, size), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	// The other server may run as another user.
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

// BenchmarkTFTP reads a boot program of 1 MiB with blocks of 1468 bytes, from
// us and from Debian's tftpd-hpa where it is installed (and may be started:
// it wants root).
func BenchmarkTFTP(b *testing.B) {
	const size = 1 << 20
	dir := benchFile(b, size, "ipxe.efi")
	ours := tftpProcess(b, dir)
	theirs, err := startTFTPD(b, dir)
	var from atomic.Uint32
	read := func(server netip.AddrPort) func() error {
		return func() error {
			n := from.Add(1) // as many hosts as there are transfers
			src := netip.AddrFrom4([4]byte{127, 90, byte(n >> 8), byte(n)})
			got, err := tftpRead(server, src, "ipxe.efi", 1468, 20*time.Second)
			if err == nil && got != size {
				err = fmt.Errorf("%d bytes of %d", got, size)
			}
			return err
		}
	}
	for _, clients := range []int{1, 50} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			mine := benchtest.Side{Do: read(ours), Callers: clients}
			if err != nil {
				benchtest.Alone(b, mine, "tftpd-hpa cannot be started (Debian: apt-get install tftpd-hpa; root): %v", err)
				return
			}
			benchtest.Compare(b, mine, benchtest.Side{Do: read(theirs), Callers: clients})
		})
	}
}

// benchTFTP makes the test binary a TFTP server for a directory: the two that
// are compared both get processes of their own.
const benchTFTP = "IRONRING_BENCH_TFTP"

// tftpProcess starts the boot service in another process.
func tftpProcess(b *testing.B, dir string) netip.AddrPort {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchTFTP+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var text string
	if _, err := fmt.Fscanln(out, &text); err != nil {
		b.Fatal(err)
	}
	return netip.MustParseAddrPort(text)
}

// serveTFTP is that process. It ends when it is killed.
func serveTFTP(dir string) error {
	srv, err := New(Config{Store: fsm.New(), Self: "p1", CADigest: digest, IPXEDir: dir, TFTPListen: loopPeer + ":0"})
	if err != nil {
		return err
	}
	fmt.Println(srv.Addrs().TFTP)
	return srv.Run(context.Background())
}

// startTFTPD starts tftpd-hpa on a free port of loopback.
func startTFTPD(b *testing.B, dir string) (netip.AddrPort, error) {
	b.Helper()
	path, err := exec.LookPath("in.tftpd")
	if err != nil {
		if path = "/usr/sbin/in.tftpd"; exec.Command(path, "-V").Run() != nil {
			return netip.AddrPort{}, err
		}
	}
	probe, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return netip.AddrPort{}, err
	}
	at := probe.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := probe.Close(); err != nil {
		return netip.AddrPort{}, err
	}
	cmd := exec.Command(path, "--foreground", "--address", at.String(), "--user", "root", "--secure", dir)
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		return netip.AddrPort{}, err
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if _, err = tftpRead(at, netip.MustParseAddr("127.90.0.1"), "ipxe.efi", 1468, 200*time.Millisecond); err == nil {
			return at, nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("%s does not answer: %w %s", path, err, out.String())
}

// tftpRead is a client in lock step that does as little as it can. It gives
// the number of bytes.
func tftpRead(server netip.AddrPort, from netip.Addr, name string, block int, limit time.Duration) (int, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	rrq := fmt.Appendf([]byte{0, 1}, "%s\x00octet\x00blksize\x00%d\x00", name, block)
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return 0, err
	}
	if _, err := conn.WriteToUDPAddrPort(rrq, server); err != nil {
		return 0, err
	}
	buf := make([]byte, block+5)
	ack := []byte{0, 4, 0, 0}
	for total, next := 0, uint16(0); ; {
		n, at, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return total, err
		}
		switch op := binary.BigEndian.Uint16(buf); {
		case n >= 4 && op == 6 && next == 0: // options acknowledged
		case n >= 4 && op == 3 && binary.BigEndian.Uint16(buf[2:]) == next:
			total += n - 4
		case n >= 4 && op == 3:
			continue
		default:
			return total, fmt.Errorf("unexpected packet %q", buf[:n])
		}
		binary.BigEndian.PutUint16(ack[2:], next)
		if _, err := conn.WriteToUDPAddrPort(ack, at); err != nil {
			return total, err
		}
		if next > 0 && n < block+4 {
			return total, nil
		}
		next++
	}
}

// BenchmarkDHCP has 1 000 machines ask for their address, 64 at a time, each
// from DISCOVER to ACK, of one peer over loopback.
func BenchmarkDHCP(b *testing.B) {
	const machines, callers, runFor = 1000, 64, 5 * time.Second
	server := benchServer(b, machines, b.TempDir()).Addrs().DHCP
	var mu sync.Mutex
	var took []time.Duration
	var next atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for range callers {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(loopRelay)})
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		all.Go(func() {
			var mine []time.Duration
			for time.Since(start) < runFor {
				began := time.Now()
				if err := exchange(b, conn, server, benchMAC(int(next.Add(1))%machines)); err != nil {
					b.Error(err)
					return
				}
				mine = append(mine, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	all.Wait()
	if len(took) == 0 {
		b.Fatal("no exchange")
	}
	slices.Sort(took)
	b.ReportMetric(float64(len(took))/time.Since(start).Seconds(), "exchanges/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(0, "ns/op")
}

// exchange is DISCOVER, OFFER, REQUEST, ACK.
func exchange(b *testing.B, conn *net.UDPConn, server netip.AddrPort, mac string) error {
	buf := make([]byte, 1500)
	ask := func(p *dhcpv4.DHCPv4, want dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
		if _, err := conn.WriteToUDPAddrPort(p.ToBytes(), server); err != nil {
			return nil, err
		}
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return nil, err
		}
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return nil, err
		}
		r, err := dhcpv4.FromBytes(buf[:n])
		if err == nil && r.MessageType() != want {
			err = fmt.Errorf("got %s", r.Summary())
		}
		return r, err
	}
	offer, err := ask(discover(b, mac, with(uefiModifiers, viaRelay)...), dhcpv4.MessageTypeOffer)
	if err != nil {
		return err
	}
	_, err = ask(discover(b, mac, with(uefiModifiers, viaRelay, request(offer.YourIPAddr.String(), toServer(offer.ServerIdentifier().String())))...), dhcpv4.MessageTypeAck)
	return err
}

// BenchmarkHTTPBoot reads an initramfs of 16 MiB, eight at a time, from us and
// from a server that does nothing but http.ServeContent.
func BenchmarkHTTPBoot(b *testing.B) {
	const size = 16 << 20
	dir := benchFile(b, size, "initramfs.img", "vmlinuz")
	ours := "http://" + benchServer(b, 0, dir).Addrs().HTTP.String() + pathInitramfs
	lis, err := net.Listen("tcp4", loopPeer+":0")
	if err != nil {
		b.Fatal(err)
	}
	bare := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(filepath.Join(dir, "initramfs.img"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer f.Close()
		http.ServeContent(w, r, "initramfs.img", time.Time{}, f)
	})}
	done := make(chan error, 1)
	go func() { done <- bare.Serve(lis) }()
	b.Cleanup(func() {
		_ = bare.Close()
		<-done
	})
	tr := &http.Transport{MaxIdleConnsPerHost: 8}
	defer tr.CloseIdleConnections()
	get := func(url string) func() error {
		return func() error {
			resp, err := (&http.Client{Transport: tr}).Get(url)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			n, err := io.Copy(io.Discard, resp.Body)
			if err == nil && n != size {
				err = fmt.Errorf("%d bytes of %d", n, size)
			}
			return err
		}
	}
	benchtest.Compare(b, benchtest.Side{Do: get(ours), Callers: 8}, benchtest.Side{Do: get("http://" + lis.Addr().String()), Callers: 8})
}
