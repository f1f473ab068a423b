package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestDocs_NameWhatThereIs: every flag and every command in the documents is one.
func TestDocs_NameWhatThereIs(t *testing.T) {
	flags, commands := map[string]bool{}, map[string]bool{}
	for _, cmd := range newRoot().Commands() {
		commands[cmd.Name()] = true
		cmd.InitDefaultHelpFlag()
		cmd.Flags().VisitAll(func(f *pflag.Flag) { flags[f.Name] = true })
	}
	for _, file := range []string{"../../README.md", "../../docs/operating.md", "../../docs/compatibility.md", "../../docs/guarantees.md", "../../CHANGELOG.md", "../../scripts/demo.sh"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		named := 0
		text := string(b)
		for _, m := range regexp.MustCompile("(?:^|[ `])--([a-z][a-z-]*[a-z])").FindAllStringSubmatch(text, -1) {
			if named++; !flags[m[1]] {
				t.Errorf("%s names --%s, which is no flag", file, m[1])
			}
		}
		for _, m := range regexp.MustCompile("(?:`|bin/|\\$ )kvctrld ([a-z][a-z-]*)").FindAllStringSubmatch(text, -1) {
			if named++; !commands[m[1]] {
				t.Errorf("%s names kvctrld %s, which is no command", file, m[1])
			}
		}
		if named == 0 && !strings.HasSuffix(file, "guarantees.md") {
			t.Errorf("nothing found in %s", file)
		}
	}
}
