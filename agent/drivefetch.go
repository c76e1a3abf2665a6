package agent

import (
	"context"
	"encoding/json"
	"io"
	"strings"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/configdrive"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/fetch"
	"github.com/ironring/ironring/internal/seal"
)

// Config drives behind a URL: they are looked at before anything is written,
// and fetched and compared again when they are.

// parseDrive reads the drive of a command. A checksum is of a URL only.
func parseDrive(text, checksum string) (*configdrive.Drive, error) {
	doc, err := json.Marshal(text)
	if err != nil {
		return nil, errs.New(errs.Internal, "the arguments cannot be read")
	}
	d, err := configdrive.Parse(doc)
	switch {
	case err != nil:
		return nil, err
	case d == nil:
		return nil, errs.New(errs.Invalid, "no config drive is given")
	case checksum != "" && d.URL == "":
		return nil, errs.New(errs.Invalid, "a checksum is given for a config drive that has no URL")
	}
	return d, nil
}

// checkDrive gets the config drive behind a URL and writes nothing: a drive
// that is missing, is none, or is another one ends the deploy while the disk is
// as it was.
func (a *agent) checkDrive(ctx context.Context, t *task) (any, error) {
	var args agentproto.CheckDriveArgs
	if err := t.decode(&args); err != nil {
		return nil, errs.New(errs.Invalid, "the arguments cannot be read")
	}
	d, err := parseDrive(args.Drive, args.Checksum)
	if err != nil {
		return nil, err
	}
	if d.URL == "" {
		return nil, errs.New(errs.Invalid, "the config drive has no URL")
	}
	image, err := a.fetchDrive(ctx, t, d.URL, args.Checksum)
	if err != nil {
		return nil, err
	}
	return &agentproto.CheckDriveResult{Bytes: int64(len(image)), Checksum: args.Checksum}, nil
}

// fetchDrive gets the file behind a URL, compares it as it was served, and
// unpacks it. Without a checksum TLS alone says that it is the right one, so
// that a redirect to http is refused.
func (a *agent) fetchDrive(ctx context.Context, t *task, url, checksum string) ([]byte, error) {
	t.progress(0, 0, "asking for "+seal.MaskURL(url))
	src, err := fetch.Open(ctx, fetch.Config{
		URLs: []string{url}, Transport: a.cfg.HTTP, Logger: t.log, Stall: a.cfg.ImageStall, NoProgress: a.cfg.ImageNoProgress,
		TLSOnly: checksum == "" && strings.HasPrefix(url, "https://"),
		Trouble: func(err error) { t.progress(0, 0, "config drive: "+err.Error()) },
	})
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "get config drive: %w", err)
	}
	defer src.Close()
	b, err := io.ReadAll(io.LimitReader(src, configdrive.MaxFetch+1))
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "get config drive: %w", err)
	}
	if len(b) > configdrive.MaxFetch {
		return nil, errs.New(errs.Invalid, "config drive %s has more than %d MiB", src.Source(), configdrive.MaxFetch>>20)
	}
	if checksum != "" {
		sum, err := parseChecksum(checksum)
		if err != nil {
			return nil, err
		}
		sum.hash.Write(b)
		if !sum.ok() {
			return nil, errs.New(errs.Invalid, "config drive %s is not the one that was asked for: digest mismatch over %d bytes: want %s:%s, got %s; it is written nowhere",
				src.Source(), len(b), sum.algo, sum.want, sum.got())
		}
	}
	if b, err = configdrive.Unpack(b); err != nil {
		return nil, errs.New(errs.KindOf(err), "config drive %s: %w", src.Source(), err)
	}
	return b, nil
}
