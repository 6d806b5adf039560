package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/earmark-dev/earmark"
)

// watchEvery is how often --watch asks again.
const watchEvery = 2 * time.Second

// Codes for a terminal. The alternate screen leaves the earlier output untouched; at the
// end the last answer is written below it.
const (
	enterAlternate = "\x1b[?1049h\x1b[?25l"
	leaveAlternate = "\x1b[?25h\x1b[?1049l"
	cursorHome     = "\x1b[H"
	clearLine      = "\x1b[K"
	clearBelow     = "\x1b[J"
)

// keepShowing shows what load returns until the command is stopped, which is no error. It
// continues if the server goes away, which may come back; any other error ends it.
func (s *session) keepShowing(load func() (view, error)) error {
	ticks := time.NewTicker(watchEvery)
	defer ticks.Stop()
	redraw := s.screen.terminal && !s.asJSON
	last := ""
	if redraw {
		fmt.Fprint(s.screen.out, enterAlternate)
		defer func() { fmt.Fprint(s.screen.out, leaveAlternate+last) }()
	}
	for {
		shown, err := load()
		switch {
		case s.ctx.Err() != nil:
			return nil
		case err != nil && (last == "" || earmark.ErrorCode(err) != earmark.CodeUnavailable):
			return err
		case err != nil && redraw:
			err = s.redraw(last, "the server does not answer; trying again")
		case err != nil:
			s.note("the server does not answer; trying again")
		case s.asJSON:
			last = s.jsonLine()
			_, err = io.WriteString(s.screen.out, last)
		case redraw:
			last = s.render(shown)
			err = s.redraw(last, "")
		default:
			last = s.render(shown)
			_, err = fmt.Fprintf(s.screen.out, "%s\n%s\n", time.Now().Format(time.RFC3339), last)
		}
		if err != nil && earmark.ErrorCode(err) != earmark.CodeUnavailable {
			return err
		}
		select {
		case <-s.ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

// jsonLine returns the answer on one line, so that each line is a document.
func (s *session) jsonLine() string {
	var compact bytes.Buffer
	if err := json.Compact(&compact, s.lastAnswer()); err != nil {
		return ""
	}
	return compact.String() + "\n"
}

// redraw replaces the screen in one write, so that nothing flickers. It counts the lines
// that do not fit, because scrolling would break the display.
func (s *session) redraw(text, trouble string) error {
	head := s.screen.paint(fmt.Sprintf("%s · every %s, Ctrl-C ends", time.Now().Format(time.TimeOnly), watchEvery), dim)
	if trouble != "" {
		head += s.screen.paint(" · "+trouble, red)
	}
	var frame strings.Builder
	frame.WriteString(cursorHome + head + clearLine + "\r\n" + clearLine)
	for _, line := range s.screen.crop(strings.Split(strings.TrimRight(text, "\n"), "\n")) {
		frame.WriteString("\r\n" + line + clearLine)
	}
	frame.WriteString(clearBelow)
	_, err := io.WriteString(s.screen.out, frame.String())
	return err
}

// crop returns the lines that fit below the head.
func (s screen) crop(lines []string) []string {
	const taken = 3 // the head, an empty line, and the count of what is left out
	used := 0
	for i, line := range lines {
		used += 1 + max(0, visibleWidth(line)-1)/max(1, s.columns) // a long line wraps
		if s.rows > taken && used > s.rows-taken {
			return append(lines[:i:i], s.paint(fmt.Sprintf("… %d more lines", len(lines)-i), dim))
		}
	}
	return lines
}

var ansiCode = regexp.MustCompile("\x1b\\[[0-9;]*m")

func visibleWidth(line string) int {
	return utf8.RuneCountInString(ansiCode.ReplaceAllString(line, ""))
}
