package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ironring/ironring/api"
)

// Files in StateDir. They outlive the agent's own restart, not the machine's:
// in the ramdisk the directory is a tmpfs, so no fsync is needed.
const (
	stateFile    = "state.json"
	identityFile = "identity.json"
)

// saved is the content of the state file.
type saved struct {
	Node        string         `json:"node"`
	Nonce       string         `json:"nonce"`
	Incarnation string         `json:"incarnation"`
	Highest     uint64         `json:"highest_token"`
	Commands    []savedCommand `json:"commands"`
}

type savedCommand struct {
	ID        string                  `json:"id"`
	Name      string                  `json:"name"`
	State     api.CommandStatus_State `json:"state"`
	Done      uint64                  `json:"done_bytes,omitempty"`
	Total     uint64                  `json:"total_bytes,omitempty"`
	Message   string                  `json:"message,omitempty"`
	Result    json.RawMessage         `json:"result,omitempty"`
	Error     string                  `json:"error,omitempty"`
	ErrorKind string                  `json:"error_kind,omitempty"`
}

// savedIdentity keeps the key of this boot, because a second key for one
// nonce means two machines to the cluster. Mode 0600.
type savedIdentity struct {
	Node  string `json:"node"`
	Nonce string `json:"nonce"`
	Key   []byte `json:"key"` // PKCS #8
}

// loadJSON reads dir/name into v; false when there is no such file.
func loadJSON(dir, name string, v any) (bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read agent state: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("read agent state %s: %w", name, err)
	}
	return true, nil
}

// saveJSON replaces dir/name by v at once or not at all.
func saveJSON(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode agent state: %w", err)
	}
	tmp := filepath.Join(dir, name+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write agent state: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("write agent state: %w", err)
	}
	return nil
}
