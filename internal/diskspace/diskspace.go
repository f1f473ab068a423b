// Package diskspace says how much room a file system has left.
package diskspace

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Free returns the bytes that an unprivileged process may still write to the file
// system that holds path.
func Free(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("free space of %q: %w", path, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}
