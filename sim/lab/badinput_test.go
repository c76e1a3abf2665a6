package lab

import "testing"

// TestBadInput: bad input gets a clear error, and nothing is lost. One lab with
// one peer serves all cases, each with machines of its own.
func TestBadInput(t *testing.T) {
	t.Parallel()
	f := startFixture(t, 64<<20)
	for _, c := range []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"images", testImages},
		{"abort", testAbort},
		{"two disks", testTwoDisks},
		{"another disk", testAnotherDisk},
		{"swapped BMCs", testSwappedBMCs},
		{"wrong password", testWrongPassword},
		{"BMCs", testBadBMCs},
		{"verbs", testVerbs},
		{"records", testRecords},
		{"life", testLife},
		{"timeline", testTimeline},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, f)
		})
	}
}
