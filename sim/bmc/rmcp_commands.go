package bmc

import (
	"context"
	"encoding/binary"

	"github.com/bougou/go-ipmi/pkg/handlers"
	"github.com/bougou/go-ipmi/pkg/types"
)

// Completion codes.
const (
	codeOK       types.CompletionCode = 0x00
	codeNoRecord types.CompletionCode = 0xcb
	codeInvalid  types.CompletionCode = 0xcc
)

type handler = func(context.Context, *handlers.HandlerContext, []byte) ([]byte, types.CompletionCode, error)

// rmcpCommands adds what go-ipmi's server has no commands for.
func (b *BMC) rmcpCommands(reg *handlers.Registry) {
	w := &wires{b: b}
	reg.RegisterFunc(types.CommandGetChassisStatus, b.chassisStatus)
	control := handlerOf(reg, types.CommandChassisControl)
	reg.RegisterFunc(types.CommandChassisControl, func(ctx context.Context, h *handlers.HandlerContext, data []byte) ([]byte, types.CompletionCode, error) {
		if len(data) > 0 && data[0]&0x0f == 4 { // diagnostic interrupt
			if err := w.reset("Nmi"); err != nil {
				return nil, codeInvalid, nil
			}
			return nil, codeOK, nil
		}
		return control(ctx, h, data)
	})
	reg.RegisterFunc(types.CommandGetSensorReading, func(_ context.Context, _ *handlers.HandlerContext, data []byte) ([]byte, types.CompletionCode, error) {
		if len(data) != 1 || data[0] != 1 {
			return nil, codeNoRecord, nil
		}
		return []byte{23, 0xc0, 0xc0}, codeOK, nil // 23 degrees, scanning, within thresholds
	})
	reg.RegisterFunc(types.CommandGetSystemGUID, func(context.Context, *handlers.HandlerContext, []byte) ([]byte, types.CompletionCode, error) {
		raw := guid(b.cfg.UUID)
		return raw[:], codeOK, nil
	})
	reg.RegisterFunc(types.CommandGetSELInfo, b.selInfo)
	reg.RegisterFunc(types.CommandReserveSEL, func(context.Context, *handlers.HandlerContext, []byte) ([]byte, types.CompletionCode, error) {
		return []byte{1, 0}, codeOK, nil
	})
	reg.RegisterFunc(types.CommandGetSELEntry, b.selEntry)
	reg.RegisterFunc(types.CommandClearSEL, func(_ context.Context, _ *handlers.HandlerContext, data []byte) ([]byte, types.CompletionCode, error) {
		if len(data) != 6 || string(data[2:5]) != "CLR" {
			return nil, codeInvalid, nil
		}
		if data[5] == 0xaa {
			w.change("clear_log", "", func() { b.hw.log = nil })
		}
		return []byte{1}, codeOK, nil // done
	})
}

// handlerOf is the handler that a command has so far.
func handlerOf(_ *handlers.Registry, c types.Command) handler {
	old := handlers.NewRegistry()
	handlers.RegisterAllHandlers(old)
	return func(ctx context.Context, h *handlers.HandlerContext, data []byte) ([]byte, types.CompletionCode, error) {
		return old.Dispatch(ctx, h, uint8(c.NetFn), c.ID, data)
	}
}

// chassisStatus tells the LED too (IPMI 2.0 table 28-3).
func (b *BMC) chassisStatus(context.Context, *handlers.HandlerContext, []byte) ([]byte, types.CompletionCode, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []byte{0, 0, 0x40}
	if b.stats.powered {
		out[0] = 1
	}
	if b.hw.led != "Off" {
		out[2] |= 0x20
	}
	return out, codeOK, nil
}

func (b *BMC) selInfo(context.Context, *handlers.HandlerContext, []byte) ([]byte, types.CompletionCode, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]byte, 14)
	out[0] = 0x51
	binary.LittleEndian.PutUint16(out[1:], uint16(len(b.hw.log)))
	binary.LittleEndian.PutUint16(out[3:], 0x4000)
	out[13] = 0x02 // reserve
	return out, codeOK, nil
}

// selEntry gives an entry as a record of the event log (IPMI 2.0 table 32-1):
// a threshold of the inlet's temperature, whatever its text, since texts are
// not what this log has.
func (b *BMC) selEntry(_ context.Context, _ *handlers.HandlerContext, data []byte) ([]byte, types.CompletionCode, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.hw.log)
	if len(data) < 4 || n == 0 {
		return nil, codeNoRecord, nil
	}
	at := int(binary.LittleEndian.Uint16(data[2:])) - 1
	switch at {
	case -1: // the first
		at = 0
	case 0xfffe: // the last
		at = n - 1
	}
	if at < 0 || at >= n {
		return nil, codeNoRecord, nil
	}
	next := uint16(at + 2)
	if at == n-1 {
		next = 0xffff
	}
	rec := make([]byte, 18)
	binary.LittleEndian.PutUint16(rec, next)
	binary.LittleEndian.PutUint16(rec[2:], uint16(at+1))
	rec[4] = 2
	binary.LittleEndian.PutUint32(rec[5:], uint32(b.hw.log[at].at.Unix()))
	rec[9], rec[11], rec[12], rec[13], rec[14] = 0x20, 4, 1, 1, 1
	rec[15], rec[16], rec[17] = 0x59, 0xff, 0xff // upper critical going high
	return rec, codeOK, nil
}
