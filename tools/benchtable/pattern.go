package main

import (
	"regexp"
	"strings"
)

// pattern is what `go test -bench` takes: alternatives, of which each has a
// regular expression for each level of a benchmark's name.
type pattern [][]*regexp.Regexp

func parsePattern(text string) (pattern, error) {
	var out pattern
	for _, alternative := range split(text, '|') {
		var levels []*regexp.Regexp
		for _, part := range split(alternative, '/') {
			r, err := regexp.Compile(part)
			if err != nil {
				return nil, err
			}
			levels = append(levels, r)
		}
		out = append(out, levels)
	}
	return out, nil
}

// match reports whether a benchmark is run: what the pattern says of deeper
// levels than the name has is for what the benchmark itself runs.
func (p pattern) match(name string) bool {
	parts := strings.Split(name, "/")
	for _, levels := range p {
		ok := true
		for i := 0; ok && i < min(len(levels), len(parts)); i++ {
			ok = levels[i].MatchString(parts[i])
		}
		if ok {
			return true
		}
	}
	return false
}

// split cuts at a separator that stands outside of brackets and is not escaped.
func split(text string, at byte) (out []string) {
	square, round, begin := 0, 0, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '[':
			square++
		case c == ']':
			square = max(square-1, 0)
		case c == '(' && square == 0:
			round++
		case c == ')' && square == 0:
			round--
		case c == at && square == 0 && round == 0:
			out = append(out, text[begin:i])
			begin = i + 1
		}
	}
	return append(out, text[begin:])
}
