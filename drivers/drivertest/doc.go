// Package drivertest holds the tests that every driver must pass, against
// whatever stands in for a BMC: an object in memory, a simulator, a real one.
//
// It checks the promises of package drivers and nothing else: that a change is
// seen by reading, that one call sends one change, that a call without a grant
// or with one that has ended changes nothing, that a call ends when its
// context or its grant does, that errors are of the right kind and hold no
// secret. Start with Run; Grant is a grant for tests.
package drivertest
