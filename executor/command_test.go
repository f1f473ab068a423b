package executor

import (
	"strings"
	"testing"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// TestCommand_EventIDIsCountedInCharacters: an id of a script that is not Latin may be
// as long as any other, and the longest still fits into the log.
func TestCommand_EventIDIsCountedInCharacters(t *testing.T) {
	for _, letter := range []string{"x", "é", "界", "🜁"} {
		id := strings.Repeat(letter, MaxEventID)
		if len(id) > fsm.MaxName {
			t.Errorf("%d bytes of event id, the log takes %d", len(id), fsm.MaxName)
		}
		c := Command{Kind: registry.CommandClear, EventID: id}
		if err := c.validate(); err != nil {
			t.Errorf("%d of %q: %v", MaxEventID, letter, err)
		}
		c.EventID += letter
		if err := c.validate(); err == nil || !strings.Contains(err.Error(), "129 characters, at most 128") {
			t.Errorf("129 of %q: %v", letter, err)
		}
	}
}
