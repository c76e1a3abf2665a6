package harness

import (
	"errors"
	"fmt"
	"os"
)

// The CD drive of a machine: what is in it is a file of the harness.

// cdArgsLocked are QEMU's arguments for the drive and what is in it.
func (vm *VM) cdArgsLocked(index int) []string {
	drive := "if=none,id=cd,media=cdrom,readonly=on"
	if vm.medium != "" {
		drive += ",format=raw,file=" + vm.medium
	}
	return []string{"-drive", drive, "-device", fmt.Sprintf("ide-cd,id=cd0,drive=cd,bootindex=%d", index)}
}

// Insert puts a file into the machine's CD drive, which may be running. The
// drive owns the file.
func (vm *VM) Insert(file string) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if !vm.cd {
		return errors.New(vm.Name + " has no CD drive")
	}
	if vm.medium != "" {
		return errors.New("there is a CD in the drive of " + vm.Name)
	}
	if vm.runningLocked() {
		if err := vm.qmp.do("blockdev-change-medium", map[string]any{"id": "cd0", "filename": file, "format": "raw", "read-only-mode": "read-only"}, nil); err != nil {
			return err
		}
	}
	vm.medium = file
	vm.changedLocked("CD inserted")
	return nil
}

// Eject empties the drive, whatever the guest does with it.
func (vm *VM) Eject() error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.medium == "" {
		return nil
	}
	if vm.runningLocked() {
		if err := vm.qmp.do("eject", map[string]any{"id": "cd0", "force": true}, nil); err != nil {
			return err
		}
	}
	file := vm.medium
	vm.medium = ""
	vm.changedLocked("CD ejected")
	return os.Remove(file)
}

// Medium is the file in the CD drive, "" when it is empty.
func (vm *VM) Medium() string {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.medium
}
