// Package configdrive is what an operator gives as the config drive of a
// deployment: documents that cloud-init reads at first boot, a finished image
// of them, or the URL of one. Service, flow and agent read it alike here.
//
// Invariants:
//   - A drive is kept, sealed and sent as one text (Drive.Text); user data may
//     hold secrets, so that neither the text nor what is in it is ever part of
//     an error or a log line.
//   - An image that was unpacked has MaxImage bytes at most, whatever was packed.
//
// Pure, safe for concurrent use. Start reading at Parse.
package configdrive

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/url"
	"strings"

	"github.com/ironring/ironring/internal/canon"
	"github.com/ironring/ironring/internal/errs"
)

// Bounds.
const (
	// MaxText is the longest drive, in bytes, that a request can hold: it is
	// part of a replicated record.
	MaxText = 40 << 10
	// MaxImage is the largest image, in bytes, unpacked; MaxFetch the largest
	// file behind a URL, which may hold the image in base64.
	MaxImage = 64 << 20
	MaxFetch = 96 << 20
)

// Label is the name of the partition and of the volume on it.
const Label = "config-2"

// Drive is one config drive. Exactly one of URL, Image and Files is set.
type Drive struct {
	URL   string
	Image []byte            // ISO 9660 or FAT
	Files map[string][]byte // path on the volume -> content
	text  string
}

// documents are the keys of an object and where each goes.
var documents = map[string]string{
	"meta_data":    "openstack/latest/meta_data.json",
	"user_data":    "openstack/latest/user_data",
	"network_data": "openstack/latest/network_data.json",
	"vendor_data":  "openstack/latest/vendor_data.json",
}

// MetaData is the path of the document that every drive has.
const MetaData = "openstack/latest/meta_data.json"

// Parse reads a drive: a URL, an image in base64 (as it is or packed by gzip),
// or an object with meta_data, user_data, network_data and vendor_data; the
// object may stand in a string. It returns nil where there is none. All errors
// are errs.Invalid.
func Parse(raw json.RawMessage) (*Drive, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" || string(raw) == `""` {
		return nil, nil
	}
	text := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, errs.New(errs.Invalid, "config drive: not a string in JSON")
		}
		text = strings.TrimSpace(text)
	}
	d, err := parse(text)
	if err != nil {
		return nil, err
	}
	if len(d.text) > MaxText {
		return nil, errs.New(errs.Invalid, "the config drive has %d bytes and a request can hold %d; serve it over http or https and give the URL", len(d.text), MaxText)
	}
	return d, nil
}

func parse(text string) (*Drive, error) {
	switch {
	case strings.HasPrefix(text, "http://"), strings.HasPrefix(text, "https://"):
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			return nil, errs.New(errs.Invalid, "the config drive's URL cannot be read")
		}
		return &Drive{URL: text, text: text}, nil
	case strings.HasPrefix(text, "{"):
		return parseObject(text)
	}
	image, err := Unpack([]byte(text))
	if err != nil {
		return nil, err
	}
	return &Drive{Image: image, text: text}, nil
}

// parseObject reads the documents.
func parseObject(text string) (*Drive, error) {
	doc, err := canon.Object([]byte(text), 0)
	if err != nil {
		return nil, errs.New(errs.Invalid, "config drive: not an object in JSON")
	}
	var in map[string]json.RawMessage
	if err := json.Unmarshal(doc, &in); err != nil {
		return nil, errs.New(errs.Invalid, "config drive: not an object in JSON")
	}
	d := &Drive{Files: map[string][]byte{MetaData: []byte("{}")}, text: string(doc)}
	for key, v := range in {
		path, ok := documents[key]
		if !ok {
			return nil, errs.New(errs.Invalid, "config drive: unknown key %.40q; meta_data, user_data, network_data and vendor_data are known", key)
		}
		content := []byte(v)
		if len(v) > 0 && v[0] == '"' {
			var s string
			if err := json.Unmarshal(v, &s); err != nil {
				return nil, errs.New(errs.Invalid, "config drive: %s is not a string in JSON", key)
			}
			content = []byte(s)
		}
		if string(v) == "null" || len(content) == 0 {
			continue
		}
		if key != "user_data" {
			var o map[string]json.RawMessage
			if json.Unmarshal(content, &o) != nil {
				return nil, errs.New(errs.Invalid, "config drive: %s is not an object in JSON", key)
			}
		}
		d.Files[path] = content
	}
	return d, nil
}

// WithDefaults are the files with the given members in the meta data where it
// has none of that name.
func (d *Drive) WithDefaults(defaults map[string]string) (map[string][]byte, error) {
	var meta map[string]json.RawMessage
	if err := json.Unmarshal(d.Files[MetaData], &meta); err != nil {
		return nil, errs.New(errs.Invalid, "config drive: meta_data is not an object in JSON")
	}
	for k, v := range defaults {
		if _, ok := meta[k]; ok || v == "" {
			continue
		}
		b, err := json.Marshal(v)
		if err != nil {
			return nil, errs.New(errs.Internal, "encode meta data: %w", err)
		}
		meta[k] = b
	}
	out := map[string][]byte{}
	for path, content := range d.Files {
		out[path] = content
	}
	b, err := json.Marshal(meta)
	if err != nil {
		return nil, errs.New(errs.Internal, "encode meta data: %w", err)
	}
	out[MetaData] = b
	return out, nil
}

// Text is the drive as it is kept; Parse reads it as a JSON string.
func (d *Drive) Text() string { return d.text }

// Unpack takes an image out of what it comes in: gzip, base64, or gzip in
// base64, as Ironic's clients make it; or nothing.
func Unpack(b []byte) ([]byte, error) {
	if Kind(b) == "" && !isGzip(b) {
		plain, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(bytes.TrimSpace(b))))
		if err != nil {
			return nil, errs.New(errs.Invalid, "the config drive is neither a URL, nor an object, nor an image in base64")
		}
		b = plain
	}
	if isGzip(b) {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err == nil {
			b, err = io.ReadAll(io.LimitReader(z, MaxImage+1))
		}
		if err != nil {
			return nil, errs.New(errs.Invalid, "the config drive is damaged: gzip: %w", err)
		}
	}
	switch {
	case len(b) > MaxImage:
		return nil, errs.New(errs.Invalid, "the config drive is larger than %d MiB", MaxImage>>20)
	case Kind(b) == "":
		return nil, errs.New(errs.Invalid, "the config drive is neither an ISO 9660 nor a FAT image")
	}
	return b, nil
}

func isGzip(b []byte) bool { return len(b) > 2 && b[0] == 0x1f && b[1] == 0x8b }

// Kind is "iso9660", "fat" or "" for an image.
func Kind(b []byte) string {
	const pvd = 16 * 2048
	switch {
	case len(b) >= pvd+2048 && string(b[pvd+1:pvd+6]) == "CD001":
		return "iso9660"
	case len(b) >= 4096 && b[510] == 0x55 && b[511] == 0xaa && (b[0] == 0xeb || b[0] == 0xe9) && (string(b[54:57]) == "FAT" || string(b[82:85]) == "FAT"):
		return "fat"
	}
	return ""
}

// VolumeLabel is the name of an image's volume, "" when it is not known.
func VolumeLabel(b []byte) string {
	switch Kind(b) {
	case "iso9660":
		return strings.TrimRight(string(b[16*2048+40:16*2048+72]), " \x00")
	case "fat":
		at := 43
		if string(b[82:85]) == "FAT" {
			at = 71
		}
		return strings.TrimRight(string(b[at:at+11]), " \x00")
	}
	return ""
}
