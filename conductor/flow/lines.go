package flow

import (
	"regexp"
	"strings"
	"sync"
	"unicode"
)

// maxLine is how many bytes of a line are looked at together; a longer one is
// cut there.
const maxLine = 4 << 10

// maxShownLine is how many characters of the line that was found are kept.
const maxShownLine = 200

// lineFinder finds the first line with a pattern in what a console shows.
// Escape sequences are left out; those that move the cursor end a line. Each
// line is looked at once when it ends and, since a prompt does not end, when
// look is called. It keeps no more than one line. Safe for concurrent use.
type lineFinder struct {
	pattern *regexp.Regexp
	hit     chan struct{} // closed when a line was found

	mu     sync.Mutex
	line   []byte // guarded by mu; what is there of the current one
	looked bool   // guarded by mu; at all of line
	escape escape // guarded by mu
	length int    // guarded by mu; of the escape sequence so far
	found  string // guarded by mu
	bytes  int64  // guarded by mu
}

// escape is where in an escape sequence (ECMA-48) the text stands.
type escape int

const (
	plain       escape = iota
	afterEsc           // ESC was seen
	inSequence         // ESC [ ... until a letter
	inString           // ESC ] ... until BEL or ESC \
	afterMiddle        // ESC ( and the like: one more
)

// maxEscape is how long a sequence may be before it is taken for plain text
// again: one that never ends must not hide all that follows.
const maxEscape = 256

func newLineFinder(pattern *regexp.Regexp) *lineFinder {
	return &lineFinder{pattern: pattern, hit: make(chan struct{})}
}

// Write implements io.Writer; it takes everything.
func (l *lineFinder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes += int64(len(p))
	for _, c := range p {
		l.takeLocked(c)
	}
	return len(p), nil
}

func (l *lineFinder) takeLocked(c byte) {
	if l.escape != plain {
		l.length++
		if l.escapedLocked(c) || l.length > maxEscape {
			l.escape = plain
		}
		return
	}
	switch {
	case c == 0x1b:
		l.escape, l.length = afterEsc, 0
	case c >= '\n' && c <= '\r':
		l.endLocked()
	case c == '\b':
		l.line = l.line[:max(0, len(l.line)-1)]
	case c == '\t':
		l.addLocked(' ')
	case c >= ' ' && c != 0x7f:
		l.addLocked(c)
	}
}

// escapedLocked takes a byte of a sequence and says whether it was the last.
func (l *lineFinder) escapedLocked(c byte) bool {
	switch l.escape {
	case afterEsc:
		switch {
		case c == '[':
			l.escape = inSequence
		case strings.IndexByte("]PX^_", c) >= 0:
			l.escape = inString
		case c >= 0x20 && c <= 0x2f:
			l.escape = afterMiddle
		case c == 'c': // the screen is empty
			l.endLocked()
			return true
		default:
			return c != 0x1b
		}
	case inSequence:
		switch {
		case c == 'H' || c == 'f' || c == 'J': // elsewhere on the screen
			l.endLocked()
			return true
		case c == 0x1b:
			l.escape = afterEsc
		case c >= 0x40 && c <= 0x7e || c < ' ':
			return true
		}
	case inString:
		if c == 0x1b {
			l.escape = afterEsc // mostly ESC \
		}
		return c == 0x07
	case afterMiddle:
		return c < 0x20 || c > 0x2f
	}
	return false
}

func (l *lineFinder) addLocked(c byte) {
	l.line, l.looked = append(l.line, c), false
	if len(l.line) >= maxLine {
		l.endLocked()
	}
}

func (l *lineFinder) endLocked() {
	l.lookLocked()
	l.line, l.looked = l.line[:0], false
}

// look looks at a line that has not ended.
func (l *lineFinder) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lookLocked()
}

func (l *lineFinder) lookLocked() {
	if l.looked || l.found != "" || len(l.line) == 0 || !l.pattern.Match(l.line) {
		l.looked = true
		return
	}
	l.found = printable(string(l.line))
	close(l.hit)
}

// printable is a line from outside, fit for a record: bounded, one line.
func printable(line string) string {
	line = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, line))
	if r := []rune(line); len(r) > maxShownLine {
		return string(r[:maxShownLine]) + "..."
	}
	if line == "" {
		return "(nothing that can be shown)"
	}
	return line
}

// sighted is the line that was found, also one that has not ended.
func (l *lineFinder) sighted() (line string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lookLocked()
	return l.found, l.found != ""
}

// size is how many bytes the console has shown.
func (l *lineFinder) size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}
