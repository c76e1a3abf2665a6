package harness

import (
	"slices"
	"sync"
)

// Turn lets one machine run at a time.
type Turn struct {
	mu   sync.Mutex
	busy *VM   // guarded by mu; whose turn it is
	line []*VM // guarded by mu; who waits, longest first
}

// NewTurn makes a Turn that nobody has.
func NewTurn() *Turn { return &Turn{} }

// take reports whether it is vm's turn now; otherwise vm waits in line.
func (t *Turn) take(vm *VM) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy == nil || t.busy == vm {
		t.busy = vm
		return true
	}
	if !slices.Contains(t.line, vm) {
		t.line = append(t.line, vm)
	}
	return false
}

// leave ends vm's turn, or its place in the line, and names the next.
func (t *Turn) leave(vm *VM) *VM {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.line = slices.DeleteFunc(t.line, func(v *VM) bool { return v == vm })
	if t.busy != vm {
		return nil
	}
	t.busy = nil
	if len(t.line) == 0 {
		return nil
	}
	t.busy, t.line = t.line[0], t.line[1:]
	return t.busy
}
