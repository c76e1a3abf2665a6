package kernelargs_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/kernelargs"
)

func TestOfNode(t *testing.T) {
	for _, c := range []struct{ doc, want, fails string }{
		{``, "", ""},
		{`{}`, "", ""},
		{`{"kernel_args":null}`, "", ""},
		{`{"kernel_args":" nomodeset  mitigations=off ","console":"ttyS1,115200n8"}`, "nomodeset mitigations=off console=ttyS1,115200n8", ""},
		{`{"console":"hvc0"}`, "console=hvc0", ""},
		{`{"kernel_args":"pci=noaer,realloc=off ip=10.0.0.1::10.0.0.254"}`, "pci=noaer,realloc=off ip=10.0.0.1::10.0.0.254", ""},
		{`{"kernel_args":"a=${net0/mac}"}`, "", "letters, digits"},
		{`{"kernel_args":"a && chain http://evil"}`, "", "letters, digits"},
		{`{"kernel_args":"a=\"b\""}`, "", "letters, digits"},
		{`{"kernel_args":"a\u00e4"}`, "", "letters, digits"},
		{`{"kernel_args":"--"}`, "", "letters, digits"},
		{`{"kernel_args":"ironring.nonce=00"}`, "", "own"},
		{`{"kernel_args":"rdinit=/bin/sh"}`, "", "decides"},
		{`{"kernel_args":"BOOTIF=01-aa"}`, "", "boot service"},
		{`{"kernel_args":"rd.iscsi.password=x"}`, "", "secret"},
		{`{"kernel_args":"my_token=x"}`, "", "secret"},
		{`{"kernel_args":7}`, "", "string"},
		{`{"console":["ttyS0"]}`, "", "string"},
		{`{"console":"ttyS0 init=/bin/sh"}`, "", "console"},
		{`{"console":"/dev/ttyS0"}`, "", "console"},
		{`[]`, "", "JSON object"},
	} {
		got, err := kernelargs.OfNode([]byte(c.doc))
		if c.fails != "" {
			if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: error %v, should say %q", c.doc, err, c.fails)
			}
			continue
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, %v, want %q", c.doc, got, err, c.want)
		}
	}
	if _, err := kernelargs.Parse(strings.Repeat("a ", kernelargs.MaxTotal)); !errors.Is(err, errs.Invalid) {
		t.Errorf("too long a line was taken: %v", err)
	}
}

// FuzzOfNode: what passes has nothing that iPXE reads.
func FuzzOfNode(f *testing.F) {
	f.Add([]byte(`{"kernel_args":"nomodeset a=b","console":"ttyS1,115200n8"}`))
	f.Add([]byte(`{"kernel_args":"${x} && y"}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		args, err := kernelargs.OfNode(doc)
		if err != nil {
			return
		}
		for _, a := range args {
			if strings.ContainsAny(a, " \t\r\n$&|#;\"'\\{}()<>*?!%") || strings.HasPrefix(a, "ironring.") {
				t.Fatalf("%q was taken", a)
			}
		}
	})
}
