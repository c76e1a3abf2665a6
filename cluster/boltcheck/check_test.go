package boltcheck

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// file is a bbolt file with the keys that Raft has: an inline bucket, and one
// of several levels with pages that overflow, made by adding and deleting.
func file(t testing.TB, entries int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, NoSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < entries; at += 100 {
		if err := db.Update(func(tx *bbolt.Tx) error {
			conf, err := tx.CreateBucketIfNotExists([]byte("conf"))
			if err != nil {
				return err
			}
			logs, err := tx.CreateBucketIfNotExists([]byte("logs"))
			if err != nil {
				return err
			}
			for i := at; i < min(at+100, entries); i++ {
				if err := logs.Put(key(i), bytes.Repeat([]byte{byte(i)}, 10+i%7*300+i%50/49*9000)); err != nil {
					return err
				}
				if i > entries/2 {
					if err := logs.Delete(key(i - entries/2)); err != nil {
						return err
					}
				}
			}
			return conf.Put([]byte("CurrentTerm"), key(at))
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func key(i int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

func check(b []byte) (keys int, err error) {
	err = Check(bytes.NewReader(b), int64(len(b)), func(_, _, _ []byte) error { keys++; return nil })
	return keys, err
}

func TestSound(t *testing.T) {
	for _, n := range []int{1, 100, 3000} {
		keys, err := check(file(t, n))
		if want := n - max(0, n-1-n/2) + 1; err != nil || keys != want {
			t.Errorf("%d entries: %d keys, want %d, %v", n, keys, want, err)
		}
	}
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, nil) // new, with its list of free pages
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := check(b); err != nil || keys != 0 {
		t.Errorf("a new file: %d keys, %v", keys, err)
	}
}

func TestDamage(t *testing.T) {
	sound := file(t, 1000)
	page := os.Getpagesize()
	m, err := (&walker{r: bytes.NewReader(sound), size: int64(len(sound))}).newest()
	if err != nil {
		t.Fatal(err)
	}
	root := m.root
	for name, c := range map[string]struct {
		change func(b []byte) []byte
		says   string
	}{
		"empty":             {func([]byte) []byte { return nil }, "truncated"},
		"one page":          {func(b []byte) []byte { return b[:page] }, "truncated"},
		"half":              {func(b []byte) []byte { return b[:len(b)/2] }, "truncated"},
		"zeroes":            {func(b []byte) []byte { return make([]byte, len(b)) }, "meta page"},
		"text":              {func([]byte) []byte { return bytes.Repeat([]byte("hello, world "), 9000) }, "meta page"},
		"first meta":        {func(b []byte) []byte { b[16+50] ^= 1; return b }, "meta page 0"},
		"second meta":       {func(b []byte) []byte { b[page+16+50] ^= 1; return b }, "meta page 1"},
		"root page cleared": {func(b []byte) []byte { clear(b[int(root)*page : (int(root)+1)*page]); return b }, fmt.Sprintf("page %d", root)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := check(c.change(bytes.Clone(sound)))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

// Whatever Check passes, bbolt reads in full, without a fault.
func TestFlips(t *testing.T) {
	sound := file(t, 300)
	rnd := rand.New(rand.NewPCG(1, 2))
	path := filepath.Join(t.TempDir(), "db")
	passed, found := 0, 0
	for range 200 {
		b := bytes.Clone(sound)
		page := rnd.IntN(len(b) / os.Getpagesize())
		for range 1 + rnd.IntN(4) { // where pages keep their structure
			b[page*os.Getpagesize()+rnd.IntN(200)] ^= 1 << rnd.IntN(8)
		}
		if _, err := check(b); err != nil {
			found++
			continue
		}
		passed++
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return b.ForEach(func(_, _ []byte) error { return nil }) })
		}); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	if passed == 0 || found == 0 {
		t.Errorf("%d passed, damage found in %d", passed, found)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(file(f, 20))
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = check(b) // returns
	})
}
