package e2e

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// The tests wait for processes and deadlines more than they compute.
const parallelTests = "4"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", parallelTests); err != nil {
		fmt.Fprintln(os.Stderr, "test.parallel:", err)
		os.Exit(1)
	}
	os.Exit(Run(m))
}
