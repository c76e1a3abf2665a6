// Package config is the configuration of the daemon: one YAML file, strict.
//
// Invariants:
//   - an unknown key is an error with its line and the nearest known key;
//   - every key has a default but data_dir;
//   - a Config that Load or Parse returned is complete and valid: defaults
//     are filled in, paths are absolute, addresses are host:port;
//   - an error names the key and the value at fault;
//   - the file holds no secrets, so that printing it is safe.
//
// A Config is not changed after it was loaded and may be read from anywhere.
// Settings that all members agree on are replicated and not here, the lease
// timing profile excepted: it is used once, by --init.
//
// Start with Config and Parse.
package config
