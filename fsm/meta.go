package fsm

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// maxWho bounds principal, source and request id.
const maxWho = 256

// checkMeta refuses a command that does not say who asked (principal), from
// where (source) and what for (reason). The request id is for those who repeat
// their requests.
func checkMeta(m *api.Meta) error {
	if err := checkMetaField("meta.principal", m.GetPrincipal(), maxWho, true); err != nil {
		return err
	}
	if err := checkMetaField("meta.source", m.GetSource(), maxWho, true); err != nil {
		return err
	}
	if err := checkMetaField("meta.request_id", m.GetRequestId(), maxWho, false); err != nil {
		return err
	}
	return checkMetaField("meta.reason", m.GetReason(), maxText, true)
}

func checkMetaField(name, value string, most int, needed bool) error {
	if value == "" && needed {
		return errs.About(errs.Invalid, name, "%s is empty: every command says who asked, from where and what for", name)
	}
	if err := checkSize(name, len(value), most); err != nil {
		return err
	}
	if strings.IndexByte(value, 0) >= 0 {
		return errs.About(errs.Invalid, name, "%s has a NUL", name)
	}
	return nil
}

// CompleteMeta is what a proposer sends of a command's meta. What a peer does
// by itself names that peer as principal and source. A reason that is an error
// may be long, or have bytes of a machine in it: it is cut and cleaned. There
// is no default reason: without one the command is refused.
//
// m is not modified; it is returned as it is when nothing is missing.
func CompleteMeta(m *api.Meta, peer string, wallMs int64) *api.Meta {
	reason := strings.ReplaceAll(strings.ToValidUTF8(clip(m.GetReason(), maxText), ""), "\x00", "")
	if m.GetPrincipal() != "" && m.GetSource() != "" && m.GetWallMs() != 0 && m.GetReason() == reason {
		return m
	}
	out := &api.Meta{}
	if m != nil {
		out = proto.CloneOf(m)
	}
	out.Reason = reason
	if out.Principal == "" {
		out.Principal = "peer:" + peer
	}
	if out.Source == "" {
		out.Source = "peer:" + peer
	}
	if out.WallMs == 0 {
		out.WallMs = wallMs
	}
	return out
}
