package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/earmark-dev/earmark"
)

// screen is where a command writes. A terminal gets tables that fit, relative times and
// colours; a file or a pipe gets everything in full.
type screen struct {
	out      io.Writer
	terminal bool
	colours  bool
	columns  int // 0: no bound
	rows     int
}

// sized is a writer with a size, such as a terminal in tests.
type sized interface {
	size() (columns, rows int)
}

func screenOf(out io.Writer) screen {
	if noted, ok := out.(*notedOutput); ok {
		s := screenOf(noted.Writer)
		s.out = noted
		return s
	}
	s := screen{out: out}
	switch out := out.(type) {
	case sized:
		s.terminal = true
		s.columns, s.rows = out.size()
	case *os.File:
		if columns, rows, err := term.GetSize(int(out.Fd())); err == nil && term.IsTerminal(int(out.Fd())) {
			s.terminal, s.columns, s.rows = true, columns, rows
		}
	}
	s.colours = s.terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return s
}

// notedOutput notes whether anything was written.
type notedOutput struct {
	io.Writer
	written bool
}

func (o *notedOutput) Write(text []byte) (int, error) {
	o.written = true
	return o.Writer.Write(text)
}

// style is an ANSI code for text.
type style string

const (
	plain   style = ""
	bold    style = "1"
	dim     style = "2"
	red     style = "31"
	green   style = "32"
	yellow  style = "33"
	magenta style = "35"
)

func (s screen) paint(text string, as style) string {
	if !s.colours || as == plain || text == "" {
		return text
	}
	return "\x1b[" + string(as) + "m" + text + "\x1b[0m"
}

// view writes an answer for people.
type view func(*sheet)

// sheet collects one answer for a screen.
type sheet struct {
	screen
	now  time.Time
	text strings.Builder
}

func (p *sheet) line(format string, args ...any) {
	fmt.Fprintf(&p.text, format+"\n", args...)
}

// flush writes what the sheet holds.
func (p *sheet) flush() error {
	_, err := io.WriteString(p.out, p.text.String())
	return err
}

// printJSON prints a document for programs.
func printJSON(out io.Writer, document any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(document)
}

// field is a label with its value. A field without a value is left out.
type field struct {
	label string
	value string
	style style
}

// labelWidth is the width of the longest label, so that the labels of all answers align.
const labelWidth = len("Enforcement")

// fields prints labels and values, one below the other, and indents values of several
// lines.
func (p *sheet) fields(fields ...field) {
	for _, f := range fields {
		label := f.label
		for value := range strings.SplitSeq(f.value, "\n") {
			if value != "" {
				p.line("%s  %s", p.paint(padRight(label, labelWidth), dim), p.paint(clean(value), f.style))
			}
			label = ""
		}
	}
}

// clean replaces control characters in foreign text: a reason or a metadata value must not
// control the reader's terminal.
func clean(text string) string {
	return earmark.VisibleText(text)
}

// when formats a time in a list: relative on a terminal, exact in a file or a pipe.
func (p *sheet) when(at time.Time) string {
	if !p.terminal {
		return at.UTC().Format(time.RFC3339)
	}
	words := relative(at.Sub(p.now))
	if largest, _, found := strings.Cut(words, " "); found && strings.HasSuffix(words, " ago") {
		return largest + " ago" // for the past, one part is enough
	}
	return words
}

// moment formats a time in full, with its distance from now.
func (p *sheet) moment(at time.Time, zone *time.Location) string {
	return stamp(at, zone) + " (" + relative(at.Sub(p.now)) + ")"
}

func stamp(at time.Time, zone *time.Location) string {
	return at.In(zone).Format("2006-01-02 15:04:05 MST")
}

func relative(d time.Duration) string {
	switch {
	case d > -time.Second && d < time.Second:
		return "now"
	case d < 0:
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

// span formats a duration in one or two parts: 4m 12s, 12m, 3h, 2d 4h.
func span(d time.Duration) string {
	const (
		day       = 24 * time.Hour
		fewEnough = 10 // from this number on, the smaller part is left out
	)
	parts := []struct {
		unit time.Duration
		name string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}
	for i, part := range parts[:len(parts)-1] {
		if d < part.unit {
			continue
		}
		smaller := parts[i+1]
		whole, rest := d/part.unit, d%part.unit/smaller.unit
		if whole >= fewEnough || rest == 0 {
			return fmt.Sprintf("%d%s", whole, part.name)
		}
		return fmt.Sprintf("%d%s %d%s", whole, part.name, rest, smaller.name)
	}
	if d < time.Second {
		return d.String()
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// per formats a unit and its window, such as tokens/day.
func per(unit string, window earmark.Window) string {
	if window.Period == earmark.PeriodLifetime {
		return unit
	}
	return unit + "/" + window.Length()
}

func padRight(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func padLeft(text string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text))) + text
}
