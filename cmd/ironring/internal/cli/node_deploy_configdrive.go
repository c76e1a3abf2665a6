package cli

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/ironring/ironring/internal/configdrive"
	"github.com/ironring/ironring/internal/errs"
)

// driveFlags are the flags that say what is on the config drive. What may be
// secret comes from files or standard input, never from the command line.
type driveFlags struct {
	drive, checksum, userData, metaData string
}

func (d *driveFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&d.drive, "config-drive", "", "`FILE` (image, JSON object or text with a URL), directory or URL of the config drive, - for standard input")
	fl.StringVar(&d.checksum, "config-drive-checksum", "", "`ALGORITHM:HEX` of the file behind the config drive's URL, as served: sha256 or sha512; required for http")
	fl.StringVar(&d.userData, "user-data", "", "`FILE` with the user data of the config drive, - for standard input")
	fl.StringVar(&d.metaData, "meta-data", "", "`FILE` with the meta data of the config drive, a JSON object")
}

// into puts the config drive into the arguments of a deploy, if one is given.
func (d *driveFlags) into(doc map[string]any, v *values) error {
	if d.checksum != "" {
		doc["config_drive_checksum"] = d.checksum
	}
	if d.drive == "" && d.userData == "" && d.metaData == "" {
		return nil
	}
	raw, err := d.given(v)
	if err != nil {
		return err
	}
	if d.userData != "" || d.metaData != "" {
		if raw, err = d.with(v, raw); err != nil {
			return err
		}
	}
	// Checked here, so that what is wrong is said of the file.
	if _, err := configdrive.Parse(raw); err != nil {
		return errs.About(errs.Invalid, "config-drive", "--config-drive: %w", err)
	}
	doc["config_drive"] = raw
	return nil
}

// given is what --config-drive means, in JSON.
func (d *driveFlags) given(v *values) (json.RawMessage, error) {
	switch {
	case d.drive == "":
		return json.RawMessage("{}"), nil
	case d.drive == "-":
		if err := v.claimStdin("config-drive", ""); err != nil {
			return nil, err
		}
		return driveOf(limited(v.f.In, "standard input", configdrive.MaxImage))
	case strings.HasPrefix(d.drive, "env:"):
		text, _, err := v.from("config-drive", "", d.drive)
		return driveOf([]byte(text), err)
	case strings.HasPrefix(d.drive, "http://") || strings.HasPrefix(d.drive, "https://"):
		if err := checkTypedURL("config-drive", d.drive); err != nil {
			return nil, err
		}
		return json.Marshal(d.drive)
	}
	path := strings.TrimPrefix(d.drive, "@")
	st, err := os.Stat(path)
	if err != nil {
		return nil, errs.About(errs.Invalid, "config-drive", "--config-drive: %w", err)
	}
	if st.IsDir() {
		return driveOfDir(path)
	}
	return driveOf(readLimited(path, configdrive.MaxImage))
}

// driveOf is what was read, in JSON: an image, or a text.
func driveOf(b []byte, err error) (json.RawMessage, error) {
	if err != nil {
		return nil, err
	}
	if configdrive.Kind(b) != "" {
		return packDrive(b)
	}
	return json.Marshal(strings.TrimSpace(string(b)))
}

// packDrive makes an image fit to be sent.
func packDrive(image []byte) (json.RawMessage, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err == nil {
		_, err = z.Write(image)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, errs.New(errs.Internal, "pack the config drive: %w", err)
	}
	return json.Marshal(base64.StdEncoding.EncodeToString(out.Bytes()))
}

// driveFiles are the files of a directory, by the key of what is in them.
var driveFiles = map[string]string{
	"meta_data": "meta_data.json", "user_data": "user_data", "network_data": "network_data.json", "vendor_data": "vendor_data.json",
}

// driveOfDir reads a directory: the files themselves, or the tree that a
// config drive has.
func driveOfDir(dir string) (json.RawMessage, error) {
	if st, err := os.Stat(filepath.Join(dir, "openstack/latest")); err == nil && st.IsDir() {
		dir = filepath.Join(dir, "openstack/latest")
	}
	doc := map[string]string{}
	for key, name := range driveFiles {
		b, err := readLimited(filepath.Join(dir, name), configdrive.MaxText)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		doc[key] = string(b)
	}
	if len(doc) == 0 {
		return nil, errs.About(errs.Invalid, "config-drive", "--config-drive: %s has none of meta_data.json, user_data, network_data.json, vendor_data.json", dir)
	}
	return json.Marshal(doc)
}

// with adds user data and meta data to documents.
func (d *driveFlags) with(v *values, raw json.RawMessage) (json.RawMessage, error) {
	text := string(raw)
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, errs.New(errs.Internal, "config drive: %w", err)
		}
	}
	var doc map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &doc) != nil {
		return nil, errs.About(errs.Invalid, "config-drive", "--user-data and --meta-data cannot be added to a config drive that is an image or a URL")
	}
	for key, file := range map[string]string{"user_data": d.userData, "meta_data": d.metaData} {
		if file == "" {
			continue
		}
		b, err := document(v, key, file)
		if err != nil {
			return nil, err
		}
		if doc[key], err = json.Marshal(string(b)); err != nil {
			return nil, errs.New(errs.Internal, "config drive: %w", err)
		}
	}
	return json.Marshal(doc)
}

func document(v *values, key, file string) ([]byte, error) {
	if file != "-" || key != "user_data" {
		return readLimited(file, configdrive.MaxText)
	}
	if err := v.claimStdin("user-data", ""); err != nil {
		return nil, err
	}
	return limited(v.f.In, "standard input", configdrive.MaxText)
}

// readLimited reads a file of at most so many bytes.
func readLimited(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errs.About(errs.Invalid, "config-drive", "config drive: %w", err)
	}
	defer f.Close()
	return limited(f, path, most)
}

func limited(r io.Reader, name string, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, errs.About(errs.Invalid, "config-drive", "config drive: %w", err)
	}
	if int64(len(b)) > most {
		return nil, errs.About(errs.Invalid, "config-drive", "config drive: %s has more than %d bytes; serve the drive over https and give the URL", name, most)
	}
	return b, nil
}
