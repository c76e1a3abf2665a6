package redfish

// QuirkNames are the rows of the table of quirks.
func QuirkNames() []string {
	var out []string
	for _, q := range quirks {
		out = append(out, q.name)
	}
	return out
}
