package pxe

import (
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// clientKind is what a DHCP client can do with an answer.
type clientKind int

const (
	plainClient clientKind = iota // wants an address only: an operating system, the agent
	pxeClient                     // firmware that loads one file over TFTP
	httpClient                    // UEFI firmware that loads one file over HTTP
	ipxeClient                    // iPXE: runs a script
)

// client is who sent a DHCP request.
type client struct {
	kind clientKind
	arch iana.Arch
	// archKnown is false when neither option 93 nor the vendor class names
	// an architecture.
	archKnown bool
}

// classify reads who sent a packet from options 60, 77 and 93.
func classify(p *dhcpv4.DHCPv4) client {
	var c client
	class := p.ClassIdentifier()
	switch {
	case isIPXE(p):
		c.kind = ipxeClient
	case strings.HasPrefix(class, "PXEClient"):
		c.kind = pxeClient
	case strings.HasPrefix(class, "HTTPClient"):
		c.kind = httpClient
	}
	if archs := p.ClientArch(); len(archs) > 0 {
		c.arch, c.archKnown = archs[0], true
		return c
	}
	// "PXEClient:Arch:00007:UNDI:003016"
	if f := strings.Split(class, ":"); len(f) >= 3 && f[1] == "Arch" {
		if n, ok := parseDecimal(f[2]); ok {
			c.arch, c.archKnown = iana.Arch(n), true
		}
	}
	return c
}

// isIPXE looks for the user class that iPXE sends, plain or as RFC 3004 has it.
func isIPXE(p *dhcpv4.DHCPv4) bool {
	raw := string(p.GetOneOption(dhcpv4.OptionUserClassInformation))
	if raw == "iPXE" {
		return true
	}
	for len(raw) > 0 {
		n := int(raw[0])
		if n == 0 || n >= len(raw) {
			return false
		}
		if raw[1:1+n] == "iPXE" {
			return true
		}
		raw = raw[1+n:]
	}
	return false
}

func parseDecimal(s string) (uint16, bool) {
	if s == "" || len(s) > 5 {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return uint16(n), n <= 0xffff
}

// loader is what firmware of one architecture loads first. Values of option 93
// are IANA's (RFC 4578 and its errata: 7 is UEFI x86-64, 9 the same at firmware
// that followed the first text).
type loader struct {
	kind clientKind // that asks with this value
	file string     // a key of the table in files.go, "" when there is none
	name string     // for timelines
}

var loaders = map[iana.Arch]loader{
	iana.INTEL_X86PC:     {pxeClient, "undionly.kpxe", "BIOS"},
	iana.EFI_IA32:        {pxeClient, "", "UEFI x86, 32 bits"},
	iana.EFI_X86_64:      {pxeClient, "snponly.efi", "UEFI x86-64"},
	iana.EFI_BC:          {pxeClient, "snponly.efi", "UEFI x86-64"},
	iana.EFI_ARM32:       {pxeClient, "", "UEFI ARM, 32 bits"},
	iana.EFI_ARM64:       {pxeClient, "snponly-arm64.efi", "UEFI ARM64"},
	iana.EFI_X86_HTTP:    {httpClient, "", "UEFI x86, 32 bits"},
	iana.EFI_X86_64_HTTP: {httpClient, "snponly.efi", "UEFI x86-64"},
	iana.EFI_BC_HTTP:     {httpClient, "snponly.efi", "UEFI x86-64"},
	iana.EFI_ARM32_HTTP:  {httpClient, "", "UEFI ARM, 32 bits"},
	iana.EFI_ARM64_HTTP:  {httpClient, "snponly-arm64.efi", "UEFI ARM64"},
}

// firstStage is the iPXE program for firmware of an architecture, a key of
// the table in files.go; "" when there is none.
func firstStage(c client) string {
	l, ok := loaders[c.arch]
	if !c.archKnown || !ok || l.kind != c.kind {
		return ""
	}
	return l.file
}

// String is how timelines name a client.
func (c client) String() string {
	arch := "unknown architecture"
	if c.archKnown {
		arch = c.arch.String()
		if l, ok := loaders[c.arch]; ok {
			arch = l.name
		}
	}
	switch c.kind {
	case pxeClient:
		return "PXE firmware (" + arch + ")"
	case httpClient:
		return "HTTP boot firmware (" + arch + ")"
	case ipxeClient:
		return "iPXE (" + arch + ")"
	}
	return "a plain client"
}
