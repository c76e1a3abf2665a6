package flow

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// shown is the line that was found so far.
func (l *lineFinder) shown() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.found
}

func (l *lineFinder) isHit() bool {
	select {
	case <-l.hit:
		return true
	default:
		return false
	}
}

// A line is found however it comes in pieces, and whatever is drawn around it.
func TestLineFinder(t *testing.T) {
	for name, test := range map[string]struct {
		pattern, text string
		look          bool   // the line has not ended
		want          string // "": not found
	}{
		"a line":               {"^Linux \\d", "BIOS\r\nLinux 6.1\r\n", false, "Linux 6.1"},
		"not yet ended":        {"login:", "web1 login: ", false, ""},
		"a prompt":             {"login: ?$", "web1 login: ", true, "web1 login:"},
		"across lines":         {"a.*b", "a\nb\n", false, ""},
		"colours":              {"^\\[ OK \\] ready$", "[\x1b[0;32m OK \x1b[0m] ready\n", false, "[ OK ] ready"},
		"title and charset":    {"^ready$", "\x1b]0;title\x07\x1b(Bready\n", false, "ready"},
		"title, other end":     {"^ready$", "\x1b]0;title\x1b\\ready\n", false, "ready"},
		"moves end a line":     {"^two$", "one\x1b[2;1Htwo\x1b[2J", false, "two"},
		"sequence is no text":  {"31m", "\x1b[31mred\n", false, ""},
		"title is no text":     {"title", "\x1b]0;title\x07\n", false, ""},
		"never ending string":  {"^here", "\x1b]0;" + strings.Repeat("x", maxEscape) + "\nhere\n", false, "here"},
		"backspace":            {"^abd$", "abc\bd\n", false, "abd"},
		"NUL and bell":         {"^ab$", "a\x00\x07b\n", false, "ab"},
		"the first one counts": {"ready", "ready 1\nready 2\n", false, "ready 1"},
		"a long line is cut":   {"end", strings.Repeat("x", maxLine) + "end\n", false, "end"},
		"not UTF-8":            {"ready", "\xff\xfe ready \xc3\n", false, "ready"},
		"shown in bounds":      {"ready", "ready " + strings.Repeat("x", 1000) + "\n", false, "ready " + strings.Repeat("x", maxShownLine-6) + "..."},
	} {
		t.Run(name, func(t *testing.T) {
			for _, chunk := range []int{1, 3, len(test.text)} {
				l := newLineFinder(regexp.MustCompile(test.pattern))
				for rest := test.text; rest != ""; rest = rest[min(chunk, len(rest)):] {
					if n, err := l.Write([]byte(rest[:min(chunk, len(rest))])); n != min(chunk, len(rest)) || err != nil {
						t.Fatal(n, err)
					}
				}
				if test.look {
					l.look()
				}
				if got := l.shown(); got != test.want || l.isHit() != (test.want != "") {
					t.Errorf("in pieces of %d: %q, want %q", chunk, got, test.want)
				}
				if l.size() != int64(len(test.text)) {
					t.Errorf("%d bytes, want %d", l.size(), len(test.text))
				}
			}
		})
	}
}

// Whatever a console shows, no more than a line is kept of it, and what is
// shown of that is one line of text.
func FuzzLineFinder(f *testing.F) {
	f.Add([]byte("web1 login: \x1b[0m\r\n"))
	f.Add([]byte("\x1b]\x1b[\x1b(\x1b\xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l := newLineFinder(regexp.MustCompile(`[a-z\x80-\x{ff}]`))
		for i := range text {
			_, _ = l.Write(text[i : i+1])
			if len(l.line) >= maxLine {
				t.Fatalf("%d bytes are kept", len(l.line))
			}
		}
		l.look()
		if s := l.shown(); utf8.RuneCountInString(s) > maxShownLine+3 || !utf8.ValidString(s) || strings.ContainsAny(s, "\n\r\x1b") || (s != "") != l.isHit() {
			t.Errorf("shown: %q", s)
		}
		// In one piece it is the same.
		one := newLineFinder(l.pattern)
		_, _ = one.Write(text)
		one.look()
		if one.shown() != l.shown() {
			t.Errorf("in one piece %q, byte by byte %q", one.shown(), l.shown())
		}
	})
}
