package agent_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

func keyOf(t *testing.T, csr []byte) string {
	t.Helper()
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(r.RawSubjectPublicKeyInfo)
}

// image is a file behind an HTTP server that can be slow or broken.
type image struct {
	content  []byte
	served   []byte
	url      string
	requests atomic.Int64
	gateAt   int64 // bytes after which the server waits for gate
	gate     chan struct{}
	serve    func(w http.ResponseWriter, r *http.Request) // nil: as it should be
}

func newImage(t *testing.T, size int) *image {
	t.Helper()
	i := &image{content: make([]byte, size)}
	rand.New(rand.NewSource(int64(size))).Read(i.content)
	i.served = i.content
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.requests.Add(1)
		if i.serve != nil {
			i.serve(w, r)
			return
		}
		if i.gate != nil {
			w = &gatedWriter{ResponseWriter: w, i: i, done: r.Context().Done()}
		}
		http.ServeContent(w, r, "disk.img", time.Time{}, bytes.NewReader(i.served))
	}))
	t.Cleanup(s.Close)
	i.url = strings.Replace(s.URL, "//", "//user:hunter2@", 1) + "/disk.img?sig=secret"
	return i
}

// hold makes the server stop after n bytes until the channel is closed.
func (i *image) hold(n int64) chan struct{} {
	i.gateAt, i.gate = n, make(chan struct{})
	return i.gate
}

type gatedWriter struct {
	http.ResponseWriter
	i    *image
	n    int64
	done <-chan struct{}
}

func (w *gatedWriter) Write(p []byte) (int, error) {
	if w.n += int64(len(p)); w.n > w.i.gateAt {
		w.ResponseWriter.(http.Flusher).Flush()
		select {
		case <-w.i.gate:
		case <-w.done:
		}
	}
	return w.ResponseWriter.Write(p)
}

func (i *image) args(compress string, disk agentproto.DiskID) agentproto.WriteImageArgs {
	sum := sha256.Sum256(i.served)
	return agentproto.WriteImageArgs{URLs: []string{i.url}, Format: "raw", Compress: compress, Checksum: "sha256:" + hex.EncodeToString(sum[:]), Disk: agentproto.JudgedDisk{DiskID: disk}}
}

// check compares the disk file with the image.
func (i *image) check(t *testing.T, path string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[:len(i.content)], i.content) {
		t.Error("the disk does not hold the image")
	}
}

// fill puts something old on a disk.
func fill(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, bytes.Repeat([]byte("old!"), diskSize/4), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *world) run(id, name string, v any) *api.CommandStatus {
	w.t.Helper()
	w.Command(1, id, name, args(w.t, v))
	return w.WaitEnd(id)
}

func TestWriteImage(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.Hello(1)
	n := 0
	for _, size := range []int{1, 512, 1 << 20, 1<<20 + 1, 5<<20 + 4711, diskSize - 1<<20, diskSize - 5, diskSize} {
		for _, compress := range []string{"", "gzip", "zstd"} {
			if compress != "" && size > 1 && size != 5<<20+4711 && size != diskSize {
				continue
			}
			t.Run(fmt.Sprintf("%d%s", size, compress), func(t *testing.T) {
				n++
				fill(t, w.path("vda"))
				img := newImage(t, size)
				img.served = pack(t, compress, img.content)
				a := img.args(compress, diskA())
				if size%2 == 0 {
					s := sha512.Sum512(img.served)
					a.Checksum = "sha512:" + hex.EncodeToString(s[:])
				}
				st := w.run(fmt.Sprint("w", n), agentproto.CmdWriteImage, a)
				var res agentproto.WriteImageResult
				if err := json.Unmarshal(st.Result, &res); st.State != api.CommandStatus_DONE || err != nil {
					t.Fatal(st)
				}
				sum := sha256.Sum256(img.content)
				want := "sha256:" + hex.EncodeToString(sum[:])
				if res.ContentDigest != want || res.WrittenDigest != want || res.ReadDigest != a.Checksum ||
					res.BytesRead != uint64(len(img.served)) || res.BytesWritten != uint64(size) || res.Requests != 1 || res.Disk.Serial != "DISK-A" {
					t.Errorf("%+v", res)
				}
				img.check(t, w.path("vda"))
			})
		}
	}
	if w.machine.BytesWritten("/dev/vdb") != 0 {
		t.Error("the other disk was written")
	}
}

func pack(t *testing.T, kind string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	switch kind {
	case "":
		return b
	case "gzip":
		z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed) // the race detector makes it slow enough
		if err != nil {
			t.Fatal(err)
		}
		z.Write(b)
		z.Close()
	case "zstd":
		z, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		z.Write(b)
		z.Close()
	}
	return out.Bytes()
}

// Whatever goes wrong, the error says what and names the file without its
// secrets, and the disk does not begin with a boot sector.
func TestWriteImageFails(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.Hello(1)
	cutBy := func(served []byte, n int) func(http.ResponseWriter, *http.Request) {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", fmt.Sprint(len(served)))
			rw.Write(served[:len(served)-n])
		}
	}
	for _, c := range []struct {
		name, compress string
		size           int
		broken         func(i *image, a *agentproto.WriteImageArgs)
		kind           errs.Kind
		text           string
		untouched      bool // nothing may have been written at all
	}{
		{"404", "", 1 << 20, func(i *image, _ *agentproto.WriteImageArgs) { i.serve = http.NotFound }, errs.NotFound, "404", true},
		{"too large", "", diskSize + 1, nil, errs.Invalid, "more than", true},
		{"too large when unpacked", "gzip", diskSize + 1, nil, errs.Invalid, "larger than the disk", false},
		{"digest", "", 3 << 20, func(_ *image, a *agentproto.WriteImageArgs) { a.Checksum = "sha256:" + strings.Repeat("00", 32) }, errs.Invalid, "digest mismatch", false},
		{"truncated", "", 3 << 20, func(i *image, _ *agentproto.WriteImageArgs) { i.serve = cutBy(i.served, 1000) }, errs.Timeout, "broken off", false},
		{"truncated on the server", "", 3 << 20, func(i *image, _ *agentproto.WriteImageArgs) { i.served = i.served[:2<<20] }, errs.Invalid, "digest mismatch over 2097152 bytes", false},
		{"truncated gzip on the server", "gzip", diskSize, func(i *image, _ *agentproto.WriteImageArgs) { i.served = i.served[:15<<20] }, errs.Invalid, "decompress", false},
		{"truncated zstd on the server", "zstd", diskSize, func(i *image, _ *agentproto.WriteImageArgs) { i.served = i.served[:15<<20] }, errs.Invalid, "decompress", false},
		{"not gzip", "gzip", 3 << 20, func(i *image, a *agentproto.WriteImageArgs) { i.served = i.content; *a = i.args("gzip", a.Disk.DiskID) }, errs.Invalid, "gzip", true},
		{"empty", "", 0, nil, errs.Invalid, "empty", true},
		{"format", "", 1 << 20, func(_ *image, a *agentproto.WriteImageArgs) { a.Format = "vmdk" }, errs.Unsupported, "vmdk", true},
		{"not qcow2", "", 1 << 20, func(_ *image, a *agentproto.WriteImageArgs) { a.Format = "qcow2" }, errs.Invalid, "not qcow2", true},
		{"qcow2 in gzip", "gzip", 1 << 20, func(_ *image, a *agentproto.WriteImageArgs) { a.Format = "qcow2" }, errs.Unsupported, "inside gzip", true},
		{"compression", "", 1 << 20, func(_ *image, a *agentproto.WriteImageArgs) { a.Compress = "xz" }, errs.Unsupported, "xz", true},
		{"no checksum", "", 1 << 20, func(_ *image, a *agentproto.WriteImageArgs) { a.Checksum = "" }, errs.Invalid, "checksum", true},
		{"md5", "", 1 << 20, func(_ *image, a *agentproto.WriteImageArgs) { a.Checksum = "md5:" + strings.Repeat("0", 32) }, errs.Invalid, "checksum", true},
		{"no URL", "", 1 << 20, func(_ *image, a *agentproto.WriteImageArgs) { a.URLs = nil }, errs.Invalid, "URL", true},
		{"serial", "", 1 << 20, func(_ *image, a *agentproto.WriteImageArgs) { a.Disk.Serial = "DISK-X" }, errs.Denied, "identity mismatch", true},
		{"wwn", "", 1 << 20, func(_ *image, a *agentproto.WriteImageArgs) { a.Disk.WWN = "0x1" }, errs.Denied, "identity mismatch", true},
		{"size", "", 1 << 20, func(_ *image, a *agentproto.WriteImageArgs) { a.Disk.SizeBytes++ }, errs.Denied, "identity mismatch", true},
		{"name only", "", 1 << 20, func(_ *image, a *agentproto.WriteImageArgs) { a.Disk.DiskID = agentproto.DiskID{Name: "/dev/vda"} }, errs.Invalid, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			fill(t, w.path("vda"))
			before := w.machine.BytesWritten("/dev/vda")
			img := newImage(t, c.size)
			img.served = pack(t, c.compress, img.content)
			a := img.args(c.compress, diskA())
			if c.broken != nil {
				c.broken(img, &a)
			}
			st := w.run("f-"+strings.ReplaceAll(c.name, " ", "-"), agentproto.CmdWriteImage, a)
			if st.State != api.CommandStatus_FAILED || errs.ParseKind(st.ErrorKind) != c.kind || !strings.Contains(st.Error, c.text) {
				t.Errorf("%v %s: %s", st.State, st.ErrorKind, st.Error)
			}
			for _, secret := range []string{"hunter2", "secret", "user"} {
				if strings.Contains(st.Error, secret) {
					t.Errorf("secret in %q", st.Error)
				}
			}
			head := make([]byte, 1<<20)
			f, err := os.Open(w.path("vda"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.ReadAt(head, 0); err != nil {
				t.Fatal(err)
			}
			touched := w.machine.BytesWritten("/dev/vda") != before
			if touched == c.untouched {
				t.Errorf("disk touched: %v", touched)
			}
			if touched && !bytes.Equal(head, make([]byte, 1<<20)) {
				t.Error("the disk's head is not empty")
			}
		})
	}
}

// A machine that dies in the middle of a write does not boot from that disk:
// its head and tail are empty from the first block on.
func TestHeadIsWrittenLast(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.Hello(1)
	fill(t, w.path("vda"))
	img := newImage(t, diskSize)
	gate := img.hold(diskSize - 1000)
	w.Command(1, "w", agentproto.CmdWriteImage, args(t, img.args("", diskA())))
	w.WaitStatus("w", func(st *api.CommandStatus) bool { return st.DoneBytes >= 14<<20 })
	b, err := os.ReadFile(w.path("vda"))
	if err != nil {
		t.Fatal(err)
	}
	empty := make([]byte, 1<<20)
	if !bytes.Equal(b[:1<<20], empty) || !bytes.Equal(b[diskSize-1<<20:], empty) {
		t.Error("an end of the disk is not empty during the write")
	}
	if !bytes.Equal(b[1<<20:10<<20], img.content[1<<20:10<<20]) {
		t.Error("the middle is not written")
	}
	w.kill()
	close(gate)
	b, err = os.ReadFile(w.path("vda"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b[:1<<20], empty) || !bytes.Equal(b[diskSize-1<<20:], empty) {
		t.Error("an end of the disk is not empty after the agent was killed")
	}
}

func TestWriteImageResumes(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.Hello(1)
	img := newImage(t, 6<<20)
	rnd := rand.New(rand.NewSource(3))
	img.serve = func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("ETag", `"one"`)
		http.ServeContent(&cutWriter{rw, rnd.Intn(2 << 20)}, r, "x", time.Time{}, bytes.NewReader(img.served))
	}
	st := w.run("w", agentproto.CmdWriteImage, img.args("", diskA()))
	var res agentproto.WriteImageResult
	if err := json.Unmarshal(st.Result, &res); err != nil || st.State != api.CommandStatus_DONE {
		t.Fatal(st)
	}
	if res.Requests < 3 || int64(res.Requests) != img.requests.Load() || res.BytesRead != 6<<20 {
		t.Errorf("%+v, %d requests served", res, img.requests.Load())
	}
	img.check(t, w.path("vda"))
}

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		w.ResponseWriter.Write(p[:w.left])
		w.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	w.left -= len(p)
	return w.ResponseWriter.Write(p)
}

// What is wrong with the image server is in the progress at once, while it is
// tried again, and without secrets.
func TestImageTroubleIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(n int64, img *image, w http.ResponseWriter, r *http.Request)
		text  string
	}{
		"from the start": {func(n int64, img *image, w http.ResponseWriter, r *http.Request) {
			if n < 3 {
				w.WriteHeader(503)
				return
			}
			http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(img.served))
		}, "503 Service Unavailable"},
		"in the middle": {func(n int64, img *image, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 1:
				http.ServeContent(&cutWriter{w, 5 << 20}, r, "x", time.Time{}, bytes.NewReader(img.served))
			case 2:
				w.WriteHeader(500)
			default:
				http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(img.served))
			}
		}, "500 Internal Server Error"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.cfg.ImageNoProgress = 10 * time.Second
			w.start(w.Peer(""))
			w.Hello(1)
			img := newImage(t, 8<<20)
			release := make(chan struct{})
			img.serve = func(rw http.ResponseWriter, r *http.Request) {
				n := img.requests.Load()
				if n == 3 {
					<-release // until the trouble was seen
				}
				c.serve(n, img, rw, r)
			}
			w.Command(1, "w", agentproto.CmdWriteImage, args(t, img.args("", diskA())))
			st := w.WaitStatus("w", func(st *api.CommandStatus) bool {
				return strings.HasPrefix(st.Message, "image server: http://") && strings.Contains(st.Message, c.text)
			})
			close(release)
			if strings.Contains(st.Message, "hunter2") || strings.Contains(st.Message, "secret") || !strings.Contains(st.Message, "/disk.img") {
				t.Errorf("message %q", st.Message)
			}
			if st := w.WaitEnd("w"); st.State != api.CommandStatus_DONE {
				t.Error(st)
			}
			img.check(t, w.path("vda"))
			for _, u := range w.Ups() {
				if s := u.GetLog().String(); strings.Contains(s, "hunter2") || strings.Contains(s, "sig=") {
					t.Errorf("a secret in %s", s)
				}
			}
		})
	}
}

func TestProgressIsThrottled(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.Hello(1)
	img := newImage(t, 8<<20)
	img.serve = func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Length", fmt.Sprint(len(img.served)))
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for off := 0; off < len(img.served); off += 16 << 10 {
			<-tick.C
			rw.Write(img.served[off : off+16<<10])
			rw.(http.Flusher).Flush()
		}
	}
	began := time.Now()
	if st := w.run("w", agentproto.CmdWriteImage, img.args("", diskA())); st.State != api.CommandStatus_DONE {
		t.Fatal(st)
	}
	n := 0
	for _, u := range w.Ups() {
		if st := u.GetStatus(); st != nil && st.State == api.CommandStatus_RUNNING {
			n++
		}
	}
	if most := int(time.Since(began)/(250*time.Millisecond)) + 3; n > most {
		t.Errorf("%d running statuses in %s, at most %d expected", n, time.Since(began), most)
	}
}

func TestEraseMetadata(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.Hello(1)
	fill(t, w.path("vda"))
	fill(t, w.path("vdb"))
	if err := putGPT(w.path("vda")); err != nil {
		t.Fatal(err)
	}
	st := w.run("bad", agentproto.CmdEraseMetadata, agentproto.EraseArgs{Disks: judged(diskA(), agentproto.DiskID{Name: "/dev/vdb", Serial: "NOPE", SizeBytes: diskSize})})
	if st.State != api.CommandStatus_FAILED || st.ErrorKind != "denied" || w.machine.BytesWritten("/dev/vda") != 0 {
		t.Errorf("%v; %d bytes written", st, w.machine.BytesWritten("/dev/vda"))
	}
	for name, list := range map[string][]agentproto.JudgedDisk{"none": nil, "one": judged(diskA()), "twice": judged(diskA(), diskA(), diskB())} {
		if st := w.run(name, agentproto.CmdEraseMetadata, agentproto.EraseArgs{Disks: list}); st.State != api.CommandStatus_FAILED || st.ErrorKind != "denied" || !strings.Contains(st.Error, "nothing was erased") {
			t.Error(st)
		}
	}
	if n := w.machine.BytesWritten("/dev/vda") + w.machine.BytesWritten("/dev/vdb"); n != 0 {
		t.Errorf("%d bytes were written", n)
	}
	st = w.run("ok", agentproto.CmdEraseMetadata, agentproto.EraseArgs{Disks: judged(diskA(), diskB())})
	var res agentproto.EraseResult
	if err := json.Unmarshal(st.Result, &res); err != nil || len(res.Disks) != 2 || res.Disks[0].Serial != "DISK-A" || len(res.Skipped) != 0 {
		t.Fatal(st)
	}
	b, err := os.ReadFile(w.path("vda"))
	if err != nil {
		t.Fatal(err)
	}
	zero := make([]byte, 4<<20)
	if !bytes.Equal(b[:4<<20], zero) || !bytes.Equal(b[diskSize-4<<20:], zero) {
		t.Error("the ends are not empty")
	}
	// Partition 2 of putGPT begins at 6 MiB and has 4 MiB.
	if !bytes.Equal(b[6<<20:7<<20], zero[:1<<20]) || !bytes.Equal(b[9<<20:10<<20], zero[:1<<20]) {
		t.Error("the ends of the partition are not empty")
	}
	if bytes.Equal(b[7<<20:8<<20], zero[:1<<20]) {
		t.Error("data was erased: this is for metadata")
	}
	for _, name := range []string{"/dev/vda", "/dev/vdb"} {
		if w.machine.BytesWritten(name) == 0 {
			t.Errorf("%s was not touched", name)
		}
	}
}
