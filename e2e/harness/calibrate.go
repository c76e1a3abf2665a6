package harness

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// reference is how long the calibration takes on the host on which the limits
// of the tests were chosen: two quiet cores, tcg.
const reference = 6 * time.Second

// Calibrate boots the marker program without firmware or disk: a check
// of QEMU and the measure of this host. It sets Scale.
func (l *Lab) Calibrate(ctx context.Context, b *Boot) error {
	console := &Console{File: filepath.Join(l.Dir, "calibrate-console.log")}
	start := time.Now()
	proc, err := l.Start(Cmd{
		Name: "calibration", Nice: 10, Log: filepath.Join(l.Dir, "calibrate-qemu.log"),
		Args: append(machine(), "-kernel", b.Kernel.Vmlinuz, "-initrd", b.Initrd,
			"-append", "console=ttyS0 quiet panic=-1 bmc=no marker="+l.ID,
			"-chardev", "file,id=console,path="+console.File, "-serial", "chardev:console"),
	})
	if err != nil {
		return err
	}
	defer proc.Kill()
	if _, err := console.Wait(ctx, 0, "IRONRING-BOOTED marker="+l.ID, 3*time.Minute); err != nil {
		return fmt.Errorf("QEMU does not work here (%s): %w", Accel(), err)
	}
	took := time.Since(start)
	l.Scale = max(1, float64(took)/float64(reference))
	l.Logf("calibration: %.1f s with %s, limits times %.1f", took.Seconds(), Accel(), l.Scale)
	return nil
}
