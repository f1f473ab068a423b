//go:build !linux

package e2e

import "testing"

// Small file systems of a test's own are mounted on Linux only.

func mountTmpfs(t *testing.T, _ string) string {
	t.Helper()
	t.Skip("no small file system to try this on: only done on Linux")
	return ""
}

func remountReadOnly(t *testing.T, _ string) { t.Helper() }

func fillDisk(t *testing.T, _, _ string, _ int64) { t.Helper() }
