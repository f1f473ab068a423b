//go:build !linux

package e2e

import "testing"

// network is for Linux only.
type network struct{}

func newNetwork(t testing.TB) *network {
	t.Helper()
	t.Skip("NOT TESTED: network partitions: only Linux has network namespaces")
	return nil
}

func (*network) add() (namespace, host string) { return "", "" }
func (*network) host() string                  { return "" }
func (*network) drop(from, to int)             {}
func (*network) heal()                         {}
