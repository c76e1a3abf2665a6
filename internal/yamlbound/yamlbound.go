// Package yamlbound parses YAML that people give us, within bounds.
//
// The YAML library that we use takes a time that grows with the square of some
// things: how deep a file is nested, empty lines at the end of a block of text,
// entries of a list that are empty, keys of a mapping that stand in lines of
// their own, documents in a file. A file of a few kilobytes can keep it busy
// for minutes, and one that is nested deep enough ends the process. It has no
// limits of its own, so files are looked at here before it parses them: as
// bytes, and token by token while it reads them. Bounds are far above what
// anybody writes. Within them the time grows with the size alone: some tens of
// seconds for the largest files that callers take.
//
// What aliases stand for is left to the callers: none of them follows aliases
// into lists of unknown length.
package yamlbound

import (
	"errors"
	"fmt"
	"io"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/scanner"
	"github.com/goccy/go-yaml/token"
)

// The bounds.
const (
	maxDepth   = 64      // lists and mappings within each other
	maxOpen    = 1000    // brackets, wherever they stand: the library reads a file of nothing else as one piece
	maxBlank   = 100     // empty lines in a row
	maxEmpty   = 10_000  // entries of lists that hold nothing
	maxKeys    = 4000    // of one mapping without braces
	maxMarkers = 100     // lines that begin or end a document, and directives
	maxTokens  = 4 << 20 // about ten for each key and its value
)

// Error is a file that exceeds a bound.
type Error struct {
	Line int
	Text string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Text) }

// Parse is parser.ParseBytes without comments. Files beyond the bounds are an
// *Error. The caller bounds the size.
func Parse(data []byte) (*ast.File, error) {
	if err := bytesOf(data); err != nil {
		return nil, err
	}
	var s scanner.Scanner
	s.Init(string(data))
	var all token.Tokens
	var l limits
	for {
		some, err := s.Scan()
		if errors.Is(err, io.EOF) {
			break
		}
		for _, t := range some {
			if err := l.look(t); err != nil {
				return nil, err
			}
		}
		all.Add(some...)
	}
	return parser.Parse(all, 0)
}

// bytesOf looks for empty lines in a row, and for brackets that nobody closes. A
// line may end as it does on Windows, or on old Macs.
func bytesOf(data []byte) error {
	line, run, open := 1, 0, 0
	for i, c := range data {
		switch {
		case c == '\n' && i > 0 && data[i-1] == '\r':
			continue
		case c == '\n' || c == '\r':
			line++
			if run++; run > maxBlank+1 {
				return &Error{line, fmt.Sprintf("more than %d empty lines in a row", maxBlank)}
			}
			continue
		case c == ' ' || c == '\t':
			continue
		case c == '[' || c == '{':
			if open++; open > maxOpen {
				return &Error{line, fmt.Sprintf("more than %d brackets that are not closed", maxOpen)}
			}
		case c == ']' || c == '}':
			open = max(0, open-1)
		}
		run = 0
	}
	return nil
}

// limits counts what the tokens of a file add up to.
type limits struct {
	tokens, empty, markers int
	flow                   int     // open [ and {
	levels                 []level // the lists and mappings around a token, the innermost last
	last                   *token.Token
}

// level is a list or a mapping without brackets.
type level struct {
	column int // in which it begins
	keys   int // so far
}

// look counts one token.
func (l *limits) look(t *token.Token) error {
	if l.tokens++; l.tokens > maxTokens {
		return &Error{lineOf(t), "the file is too large"}
	}
	if t.Type == token.CommentType || t.Position == nil {
		return nil
	}
	last := l.last
	l.last = t
	switch t.Type {
	case token.SequenceStartType, token.MappingStartType:
		if l.flow == 0 { // it may be a key
			if err := l.block(last, t); err != nil {
				return err
			}
		}
		l.flow++
	case token.SequenceEndType, token.MappingEndType:
		l.flow = max(0, l.flow-1)
	case token.DocumentHeaderType, token.DocumentEndType, token.DirectiveType:
		if l.markers++; l.markers > maxMarkers {
			return &Error{lineOf(t), fmt.Sprintf("more than %d lines that begin or end a document", maxMarkers)}
		}
		l.levels = l.levels[:0]
	default:
		if l.flow > 0 {
			break
		}
		if err := l.block(last, t); err != nil {
			return err
		}
	}
	if l.flow+len(l.levels) > maxDepth {
		return &Error{lineOf(t), fmt.Sprintf("nested more than %d deep", maxDepth)}
	}
	return nil
}

// block counts a token that stands in no brackets, behind last.
func (l *limits) block(last, t *token.Token) error {
	// Only what stands first in a line, or behind a dash or question mark, can
	// begin a list or a mapping.
	first := last == nil || last.Position.Line != t.Position.Line || opens(last)
	if first {
		now := level{column: t.Position.Column}
		for len(l.levels) > 0 && l.levels[len(l.levels)-1].column >= now.column {
			if top := l.levels[len(l.levels)-1]; top.column == now.column {
				now.keys = top.keys // the same one goes on
			}
			l.levels = l.levels[:len(l.levels)-1]
		}
		l.levels = append(l.levels, now)
		if last != nil && opens(last) && last.Position.Line != t.Position.Line && t.Position.Column <= last.Position.Column {
			if l.empty++; l.empty > maxEmpty {
				return &Error{lineOf(t), fmt.Sprintf("more than %d empty entries in lists", maxEmpty)}
			}
		}
	}
	// A key has a question mark before it or a colon behind it, or both.
	isKey := t.Type == token.MappingKeyType || t.Type == token.MappingValueType && !first
	if isKey && len(l.levels) > 0 {
		top := &l.levels[len(l.levels)-1]
		if top.keys++; top.keys > maxKeys {
			return &Error{lineOf(t), fmt.Sprintf("more than %d keys in one mapping", maxKeys)}
		}
	}
	return nil
}

// opens says whether a list or a mapping may begin behind a token in its line.
func opens(t *token.Token) bool {
	return t.Type == token.SequenceEntryType || t.Type == token.MappingKeyType
}

func lineOf(t *token.Token) int {
	if t.Position == nil {
		return 1
	}
	return t.Position.Line
}
