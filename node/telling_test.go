package node

import "testing"

func TestTelling(t *testing.T) {
	for _, s := range []string{"4c4c4544-0044-4710-8051-b4c04f4d3132", "00000000-0000-0000-0000-525400000001", "4C4C4544004447108051B4C04F4D3132"} {
		if !TellingUUID(s) {
			t.Errorf("UUID %q tells nothing", s)
		}
	}
	for _, s := range []string{
		"", "rubbish", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
		"03000200-0400-0500-0006-000700080009", "00020003-0004-0005-0006-000700080009",
		"12345678-1234-5678-90AB-CDDEEFAABBCC", "78563412-3412-7856-90ab-cddeefaabbcc",
	} {
		if TellingUUID(s) {
			t.Errorf("UUID %q tells something", s)
		}
	}
	for _, s := range []string{"J7X2PK3", "CZ3021ABCD", "VMware-42 1f", "defiant-7"} {
		if !TellingSerial(s) {
			t.Errorf("serial number %q tells nothing", s)
		}
	}
	for _, s := range []string{
		"", " ", "0", "00000000", "xxxxxx", "........", "None", "To Be Filled By O.E.M.", "Default string", "Not Specified",
		"System Serial Number", "0123456789", " unknown ", "N.A.", "None Specified", "No Serial", "0123456789ABCDEF", "123456789012", "Board Serial", "Undefined",
	} {
		if TellingSerial(s) {
			t.Errorf("serial number %q tells something", s)
		}
	}
	for m, want := range map[string]bool{
		"ac:1f:6b:12:34:56": true, "52:54:00:00:00:01": true, "02:42:00:00:01:00": true,
		"ac:1f:6b:00:00:00": false, "22:22:22:22:22:22": false, "00:11:22:33:44:55": false, "be:3a:f2:b6:05:9f": false,
	} {
		if tellingMAC(m) != want {
			t.Errorf("MAC address %s tells something: %v", m, !want)
		}
	}
}
