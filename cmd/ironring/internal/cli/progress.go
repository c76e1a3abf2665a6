package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/node"
)

// progress prints what happens to a node, a line for each change. On a
// terminal the percentage is kept up to date in place, elsewhere a line comes
// for every ten percent.
type progress struct {
	f    *Factory
	w    io.Writer
	live bool // rewrite the last line
	open bool // the last line has no line break yet

	state  api.State
	holder string
	step   string // flow, cursor and attempt of the last line

	command string // cmd id that the figures below belong to
	printed float64
	atMS    int64
	bytes   uint64
	rate    float64 // bytes a second, smoothed
}

func newProgress(f *Factory, w io.Writer) *progress {
	if f.json() {
		w = io.Discard
	}
	return &progress{f: f, w: w, live: f.color(w), printed: -1}
}

// event is called with every event of a wait.
func (p *progress) event(ev *api.NodeEvent) {
	n, fl := ev.GetNode(), ev.GetFlow()
	if pr := ev.GetProgress(); pr != nil {
		p.figures(pr)
		return
	}
	if n.GetState() != p.state {
		p.state = n.GetState()
		p.line("%s", node.StateName(p.state))
	}
	if h := ev.GetLock().GetConductor(); h != "" && h != p.holder {
		if p.holder != "" {
			p.line("%s goes on with it (was %s)", h, p.holder)
		}
		p.holder = h
	}
	if fl.GetStatus() != api.FlowStatus_FLOW_RUNNING || int(fl.GetCursor()) >= len(fl.GetSteps()) {
		return
	}
	step := fmt.Sprintf("%s/%d/%d", fl.GetId(), fl.GetCursor(), fl.GetAttempt())
	if !fl.GetStarted() || step == p.step {
		return
	}
	p.step = step
	by := ""
	if p.holder != "" {
		by = " on " + p.holder
	}
	again := ""
	if s := fl.GetSteps()[fl.GetCursor()]; s.GetStarts() > 1 {
		again = fmt.Sprintf(", start %d", s.GetStarts())
	}
	p.line("%s: %s%s%s", kindText(fl.GetKind()), stepText(fl), again, by)
}

// figures prints percent and rate of a running command.
func (p *progress) figures(pr *api.Progress) {
	if pr.GetCmdId() != p.command {
		p.command, p.printed, p.atMS, p.bytes, p.rate = pr.GetCmdId(), -1, 0, 0, 0
	}
	p.measure(pr)
	if !p.live && pr.GetPercent() < p.printed+10 && (pr.GetPercent() < 100 || p.printed >= 100) {
		return
	}
	p.printed = pr.GetPercent()
	text := fmt.Sprintf("%5.1f %%", pr.GetPercent())
	if pr.GetTotalBytes() > 0 {
		text += fmt.Sprintf("  %s of %s", bytesText(float64(pr.GetDoneBytes())), bytesText(float64(pr.GetTotalBytes())))
	}
	if p.rate > 0 {
		text += fmt.Sprintf("  %s/s", bytesText(p.rate))
	}
	if pr.GetMessage() != "" {
		text += "  " + p.f.clip(pr.GetMessage(), 60)
	}
	if p.live {
		fmt.Fprintf(p.w, "\r\x1b[K          %s", text)
		p.open = true
		return
	}
	fmt.Fprintf(p.w, "          %s\n", text)
}

// measure keeps the rate: half of the last value, so that it settles within a
// few reports.
func (p *progress) measure(pr *api.Progress) {
	at, done := pr.GetAtMs(), pr.GetDoneBytes()
	if p.atMS != 0 && at > p.atMS && done >= p.bytes {
		now := float64(done-p.bytes) * 1000 / float64(at-p.atMS)
		if p.rate == 0 {
			p.rate = now
		}
		p.rate = (p.rate + now) / 2
	}
	if at > p.atMS {
		p.atMS, p.bytes = at, done
	}
}

func (p *progress) line(format string, args ...any) {
	p.close()
	fmt.Fprintf(p.w, "%s  %s\n", p.f.Now().Format(time.TimeOnly), oneLine(fmt.Sprintf(format, args...)))
}

// close ends a line that was being rewritten.
func (p *progress) close() {
	if p.open {
		fmt.Fprintln(p.w)
		p.open = false
	}
}
