package agent_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	iofs "io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	diskfsfile "github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

const (
	secret    = "hunter2"
	documents = `{"meta_data":{"hostname":"h1"},"user_data":"#cloud-config\npassword: ` + secret + `\n"}`
)

// putImageGPT is a disk with an image smaller than it: the second GPT is where
// the image ends. The MBR has a boot program and an active protective entry.
func putImageGPT(t *testing.T, path string, names ...string) {
	t.Helper()
	fill(t, path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tab := &gpt.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, ProtectiveMBR: true, GUID: "6F0E0D0C-0B0A-0908-0706-050403020100", Partitions: []*gpt.Partition{
		{Index: 1, Start: 2048, End: 4095, Type: gpt.EFISystemPartition, Name: "esp", GUID: strings.ToUpper(espGUID), Attributes: 1},
	}}
	for i, name := range names {
		start := uint64(6+2*i) << 11
		tab.Partitions = append(tab.Partitions, &gpt.Partition{Index: 14 + i, Start: start, End: start + 4095, Type: gpt.LinuxFilesystem, Name: name})
	}
	if err := tab.Write(f, 12<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("BOOT"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0x80}, 446); err != nil {
		t.Fatal(err)
	}
}

func readGPT(t *testing.T, path string) *gpt.Table {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tab, err := gpt.Read(f, 512, 512)
	if err != nil {
		t.Fatal(err)
	}
	if err := tab.Verify(f, diskSize); err != nil {
		t.Errorf("the tables do not fit each other and the disk: %v", err)
	}
	return tab
}

// readISO reads the files of a volume.
func readISO(t *testing.T, path string, start, size int64) map[string]string {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The library reads some things from the start of its file.
	part := filepath.Join(t.TempDir(), "iso")
	if err := os.WriteFile(part, whole[start:start+size], 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := diskfsfile.OpenFromPath(part, true)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	fs, err := iso9660.Read(b, size, 0, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimRight(fs.Label(), " ") != "config-2" {
		t.Errorf("label %q", fs.Label())
	}
	out := map[string]string{}
	if err := iofs.WalkDir(fs, ".", func(p string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := fs.OpenFile("/"+p, os.O_RDONLY)
		if err != nil {
			return err
		}
		defer f.Close()
		c, err := io.ReadAll(f)
		out[p] = string(c)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func (w *world) drive(id, text string) (agentproto.ConfigDriveResult, *api.CommandStatus) {
	w.t.Helper()
	st := w.run(id, agentproto.CmdConfigDrive, agentproto.ConfigDriveArgs{Drive: text, Defaults: map[string]string{"uuid": "node-1"}, Disk: diskA()})
	var res agentproto.ConfigDriveResult
	if st.State == api.CommandStatus_DONE {
		if err := json.Unmarshal(st.Result, &res); err != nil {
			w.t.Fatal(err)
		}
	}
	return res, st
}

func TestConfigDrive(t *testing.T) {
	w := newWorld(t, nil)
	putImageGPT(t, w.path("vda"), "root")
	w.start(w.Peer(""))
	w.Hello(1)
	res, st := w.drive("one", documents)
	if st.State != api.CommandStatus_DONE || res.Found || res.Partition != 2 || res.StartByte != 14<<20 {
		t.Fatalf("%+v %v", res, st)
	}
	tab := readGPT(t, w.path("vda"))
	var got *gpt.Partition
	for _, p := range tab.Partitions {
		switch p.Index {
		case 1:
			if p.Attributes != 1 || !strings.EqualFold(p.GUID, espGUID) || p.Name != "esp" {
				t.Errorf("the image's own partition has changed: %+v", p)
			}
		case 2:
			got = p
		}
	}
	if len(tab.Partitions) != 3 || got == nil || got.Name != "config-2" || got.Start != 14<<11 || tab.GUID != "6F0E0D0C-0B0A-0908-0706-050403020100" {
		t.Fatalf("%+v", tab)
	}
	b, err := os.ReadFile(w.path("vda"))
	if err != nil {
		t.Fatal(err)
	}
	if string(b[:4]) != "BOOT" || b[446] != 0x80 || b[450] != 0xee || !bytes.Equal(b[458:462], []byte{0xff, 0x7f, 0, 0}) {
		t.Errorf("MBR: %x", b[440:512])
	}
	files := readISO(t, w.path("vda"), res.StartByte, 1<<20)
	if files["openstack/latest/user_data"] != "#cloud-config\npassword: hunter2\n" || files["openstack/latest/meta_data.json"] != `{"hostname":"h1","uuid":"node-1"}` || len(files) != 2 {
		t.Errorf("%q", files)
	}

	// Whoever resumes finds it there.
	before := w.machine.BytesWritten("/dev/vda")
	res, st = w.drive("two", documents)
	if st.State != api.CommandStatus_DONE || !res.Found || res.Partition != 2 || w.machine.BytesWritten("/dev/vda") != before {
		t.Errorf("%+v %v", res, st)
	}
	// Another one takes its place.
	if res, st = w.drive("three", `{"user_data":"other"}`); st.State != api.CommandStatus_DONE || res.Found || res.Partition != 2 {
		t.Errorf("%+v %v", res, st)
	}
	if f := readISO(t, w.path("vda"), res.StartByte, 1<<20); f["openstack/latest/user_data"] != "other" || len(readGPT(t, w.path("vda")).Partitions) != 3 {
		t.Errorf("%q", f)
	}
	w.kill()
	for _, u := range w.Ups() {
		if s := u.String(); strings.Contains(s, secret) {
			t.Errorf("a secret was told: %s", s)
		}
	}
	if err := filepath.WalkDir(filepath.Join(w.dir, "state"), func(p string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		c, err := os.ReadFile(p)
		if bytes.Contains(c, []byte(secret)) {
			t.Errorf("a secret stays in %s", p)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// A machine that lost its power between the drive and the table, or in the
// middle of the drive.
func TestConfigDriveInterrupted(t *testing.T) {
	w := newWorld(t, nil)
	putImageGPT(t, w.path("vda"))
	w.start(w.Peer(""))
	w.Hello(1)
	res, st := w.drive("one", documents)
	if st.State != api.CommandStatus_DONE {
		t.Fatal(st)
	}
	write(t, w.path("vda"), res.StartByte+16*2048, strings.Repeat("\x00", 2048)) // written last
	if res, st = w.drive("two", documents); st.State != api.CommandStatus_DONE || res.Found {
		t.Errorf("%+v %v", res, st)
	}
	putImageGPT(t, w.path("vda")) // the image's table, which knows of no drive
	if res, st = w.drive("three", documents); st.State != api.CommandStatus_DONE || res.Found {
		t.Errorf("%+v %v", res, st)
	}
	if f := readISO(t, w.path("vda"), res.StartByte, 1<<20); len(f) != 2 {
		t.Errorf("%q", f)
	}
}

// An image may bring the partition along.
func TestConfigDriveInImage(t *testing.T) {
	w := newWorld(t, nil)
	putImageGPT(t, w.path("vda"), "root", "config-2")
	w.start(w.Peer(""))
	w.Hello(1)
	res, st := w.drive("one", documents)
	if st.State != api.CommandStatus_DONE || res.Partition != 15 || res.StartByte != 8<<20 {
		t.Fatalf("%+v %v", res, st)
	}
	if f := readISO(t, w.path("vda"), res.StartByte, 1<<20); len(f) != 2 {
		t.Errorf("%q", f)
	}
}

func TestConfigDriveMBR(t *testing.T) {
	w := newWorld(t, nil)
	fill(t, w.path("vda"))
	write(t, w.path("vda"), 0, string(mbr(mbrPart{0x83, 2048, 4 << 11}, mbrPart{0x82, 6 << 11, 2 << 11})))
	w.start(w.Peer(""))
	w.Hello(1)
	res, st := w.drive("one", documents)
	if st.State != api.CommandStatus_DONE || res.Partition != 3 || res.StartByte != 15<<20 {
		t.Fatalf("%+v %v", res, st)
	}
	b, err := os.ReadFile(w.path("vda"))
	if err != nil {
		t.Fatal(err)
	}
	want := mbr(mbrPart{0x83, 2048, 4 << 11}, mbrPart{0x82, 6 << 11, 2 << 11}, mbrPart{0x83, 15 << 11, 1 << 11})
	copy(want[446+32:], []byte{0, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff})
	if !bytes.Equal(b[:512], want) {
		t.Errorf("MBR:\n%x\n%x", b[440:512], want[440:])
	}
	if f := readISO(t, w.path("vda"), res.StartByte, 1<<20); len(f) != 2 {
		t.Errorf("%q", f)
	}
	if res, st = w.drive("two", documents); st.State != api.CommandStatus_DONE || !res.Found || res.Partition != 3 {
		t.Errorf("%+v %v", res, st)
	}
}

// The forms that a drive comes in, as a text and behind a URL.
func TestConfigDriveImages(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.Hello(1)
	putImageGPT(t, w.path("vda"))
	res, st := w.drive("make", documents)
	if st.State != api.CommandStatus_DONE {
		t.Fatal(st)
	}
	b, err := os.ReadFile(w.path("vda"))
	if err != nil {
		t.Fatal(err)
	}
	iso := b[res.StartByte : res.StartByte+res.Bytes]
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(iso); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString(zipped.Bytes())
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/iso":
			rw.Write(iso)
		case "/gz":
			rw.Write(zipped.Bytes())
		case "/b64":
			io.WriteString(rw, text)
		case "/html":
			io.WriteString(rw, "<html>please log in</html>")
		default:
			rw.WriteHeader(404)
		}
	}))
	defer srv.Close()
	for i, in := range []string{text, srv.URL + "/iso", srv.URL + "/gz", strings.Replace(srv.URL, "//", "//joe:"+secret+"@", 1) + "/b64?t=" + secret} {
		putImageGPT(t, w.path("vda"))
		res, st := w.drive(fmt.Sprint("i", i), in)
		if st.State != api.CommandStatus_DONE || res.Found || res.Bytes != int64(len(iso)) {
			t.Fatalf("%d: %+v %v", i, res, st)
		}
		if f := readISO(t, w.path("vda"), res.StartByte, 1<<20); len(f) != 2 {
			t.Errorf("%d: %q", i, f)
		}
		if res, st = w.drive(fmt.Sprint("again", i), in); st.State != api.CommandStatus_DONE || !res.Found {
			t.Errorf("%d: %+v %v", i, res, st)
		}
	}
	for path, kind := range map[string]errs.Kind{"/gone?t=" + secret: errs.NotFound, "/html?t=" + secret: errs.Invalid} {
		_, st := w.drive("bad"+path[:5], srv.URL+path)
		if st.State != api.CommandStatus_FAILED || errs.ParseKind(st.ErrorKind) != kind || strings.Contains(st.Error, secret) {
			t.Errorf("%s: %v", path, st)
		}
	}
}

// The file behind a URL is compared as it is served, before anything is
// written; where TLS stands for it, no redirect leads away from TLS.
func TestDriveChecksum(t *testing.T) {
	iso := make([]byte, 40<<10)
	copy(iso[16*2048:], "\x01CD001")
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(iso); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	plain := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, err := rw.Write(zipped.Bytes()); err != nil {
			t.Log(err)
		}
	}))
	defer plain.Close()
	safe := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(rw, r, plain.URL+"/gz", http.StatusFound)
			return
		}
		if _, err := rw.Write(zipped.Bytes()); err != nil {
			t.Log(err)
		}
	}))
	defer safe.Close()
	w := newWorld(t, nil)
	w.cfg.HTTP = safe.Client().Transport
	w.start(w.Peer(""))
	w.Hello(1)
	putImageGPT(t, w.path("vda"))
	s256, s512 := sha256.Sum256(zipped.Bytes()), sha512.Sum512(zipped.Bytes())
	other := sha256.Sum256(iso)
	good, long, bad := fmt.Sprintf("sha256:%x", s256), fmt.Sprintf("SHA512:%X", s512), fmt.Sprintf("sha256:%x", other)
	for i, c := range []struct{ url, checksum, says string }{
		{plain.URL + "/gz", good, ""},
		{plain.URL + "/gz", long, ""},
		{plain.URL + "/gz?t=" + secret, bad, "is not the one that was asked for"},
		{plain.URL + "/gz", "md5:00", "neither sha256:HEX nor sha512:HEX"},
		{safe.URL + "/gz", "", ""},
		{safe.URL + "/away", good, ""},
		{safe.URL + "/away", "", "away from https"},
		{documents, good, "has no URL"},
	} {
		before := w.machine.BytesWritten("/dev/vda")
		look := w.run(fmt.Sprint("look", i), agentproto.CmdCheckDrive, agentproto.CheckDriveArgs{Drive: c.url, Checksum: c.checksum})
		if w.machine.BytesWritten("/dev/vda") != before {
			t.Errorf("%d: a look has written", i)
		}
		put := w.run(fmt.Sprint("put", i), agentproto.CmdConfigDrive, agentproto.ConfigDriveArgs{Drive: c.url, Checksum: c.checksum, Disk: diskA()})
		for _, st := range []*api.CommandStatus{look, put} {
			var res struct{ Checksum string }
			switch {
			case c.says != "":
				if st.State != api.CommandStatus_FAILED || !strings.Contains(st.Error, c.says) || strings.Contains(st.Error, secret) || w.machine.BytesWritten("/dev/vda") != before {
					t.Errorf("%d: %v", i, st)
				}
			case st.State != api.CommandStatus_DONE || json.Unmarshal(st.Result, &res) != nil || res.Checksum != c.checksum:
				t.Errorf("%d: %v", i, st)
			}
		}
	}
	if st := w.run("documents", agentproto.CmdCheckDrive, agentproto.CheckDriveArgs{Drive: documents}); st.State != api.CommandStatus_FAILED {
		t.Errorf("a look at documents: %v", st)
	}
}

func TestConfigDriveRefused(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.Hello(1)
	full := mbr(mbrPart{0x83, 2048, 2048}, mbrPart{0x83, 4096, 2048}, mbrPart{0x83, 6144, 2048}, mbrPart{0x83, 8192, 2048})
	for name, c := range map[string]struct {
		disk func()
		text string
		kind errs.Kind
	}{
		"no room":         {func() { write(t, w.path("vda"), 0, string(mbr(mbrPart{0x83, 2048, 15<<11 - 1}))) }, "no room", errs.Invalid},
		"no free entry":   {func() { write(t, w.path("vda"), 0, string(full)) }, "no free entry", errs.Unsupported},
		"no partitions":   {func() {}, "no partition table", errs.Invalid},
		"GPT, no room":    {func() { putImageGPT(t, w.path("vda"), "a", "b", "c", "d", "e") }, "", errs.Invalid},
		"half of a table": {func() { putImageGPT(t, w.path("vda")); write(t, w.path("vda"), 512+20, "rubbish!") }, "damaged GPT", errs.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			fill(t, w.path("vda"))
			c.disk()
			before := w.machine.BytesWritten("/dev/vda")
			_, st := w.drive(strings.ReplaceAll(name, " ", "-"), documents)
			if st.State != api.CommandStatus_FAILED || errs.ParseKind(st.ErrorKind) != c.kind || !strings.Contains(st.Error, c.text) {
				t.Error(st)
			}
			if w.machine.BytesWritten("/dev/vda") != before {
				t.Error("the disk was written")
			}
		})
	}
}
