// Package archtest holds the tests of the source tree itself: who may import
// whom, and that the pure packages stay pure. It has no code of its own.
//
// The rules are the tables at the top of layers_test.go and pure_test.go; a
// change there is a decision about the architecture and needs an ADR. Only
// files of the product count: a test may import what it needs.
package archtest
