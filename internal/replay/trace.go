package replay

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

// Bounds of a trace.
const (
	maxLineBytes = 64 << 10   // of one line, so that any file is read in bounded memory
	MaxRowTokens = 10_000_000 // in one column of one row; more is a mistake in the file
)

// The columns that a trace has, in any order and among others.
const (
	timeColumn      = "TIMESTAMP"
	contextColumn   = "ContextTokens"
	generatedColumn = "GeneratedTokens"
)

// timeLayouts are the forms of a timestamp; each also takes a fraction of a second.
// Without an offset it is UTC.
var timeLayouts = []string{"2006-01-02 15:04:05", time.RFC3339, "2006-01-02 15:04:05Z07:00"}

// Row is one request of a trace.
type Row struct {
	Number          int64 // from 1
	At              time.Time
	ContextTokens   int64
	GeneratedTokens int64
}

// UsedTokens returns the real usage of the request.
func (r Row) UsedTokens() int64 { return r.ContextTokens + r.GeneratedTokens }

// Reader reads a trace row by row, in order of time.
type Reader struct {
	lines  *bufio.Scanner
	line   int // number of the line that was read last, from 1
	fields int // fields of a line, as the header has them
	at     int // the columns' places in a line
	input  int
	output int
	last   Row
}

// NewReader reads the header of a trace.
func NewReader(r io.Reader) (*Reader, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4<<10), maxLineBytes)
	reader := &Reader{lines: lines}
	header, err := reader.record()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the trace is empty; its first line names the columns " + columnNames())
	}
	if err != nil {
		return nil, err
	}
	reader.fields = len(header)
	for column, place := range map[string]*int{timeColumn: &reader.at, contextColumn: &reader.input, generatedColumn: &reader.output} {
		if *place, err = find(header, column); err != nil {
			return nil, fmt.Errorf("line %d: %w", reader.line, err)
		}
	}
	return reader, nil
}

// Next returns the next row, and io.EOF after the last one. Its errors name the
// line and the column.
func (r *Reader) Next() (Row, error) {
	record, err := r.record()
	if err != nil {
		return Row{}, err
	}
	if len(record) != r.fields {
		return Row{}, fmt.Errorf("line %d: has %d columns, and the header has %d", r.line, len(record), r.fields)
	}
	row := Row{Number: r.last.Number + 1}
	if row.At, err = parseTime(record[r.at]); err != nil {
		return Row{}, r.blame(timeColumn, err)
	}
	if r.last.Number > 0 && row.At.Before(r.last.At) {
		return Row{}, r.blame(timeColumn, fmt.Errorf("%q is before the line above it; sort the trace by time", earmark.Clip(record[r.at])))
	}
	if row.ContextTokens, err = parseTokens(record[r.input]); err != nil {
		return Row{}, r.blame(contextColumn, err)
	}
	if row.GeneratedTokens, err = parseTokens(record[r.output]); err != nil {
		return Row{}, r.blame(generatedColumn, err)
	}
	r.last = row
	return row, nil
}

func (r *Reader) blame(column string, err error) error {
	return fmt.Errorf("line %d, column %s: %w", r.line, column, err)
}

// record returns the fields of the next line that is not empty. A record is one
// line: a quote that is never closed would otherwise swallow the rest of the file.
func (r *Reader) record() ([]string, error) {
	for r.lines.Scan() {
		r.line++
		line := r.lines.Text()
		if r.line == 1 {
			line = strings.TrimPrefix(line, "\ufeff") // spreadsheets put a byte order mark in front
		}
		if strings.TrimSpace(line) == "" {
			continue
		}
		if !strings.Contains(line, `"`) {
			return strings.Split(line, ","), nil
		}
		record, err := csv.NewReader(strings.NewReader(line)).Read()
		if err != nil {
			var wrong *csv.ParseError
			if errors.As(err, &wrong) {
				err = wrong.Err
			}
			return nil, fmt.Errorf("line %d: %w", r.line, err)
		}
		return record, nil
	}
	if errors.Is(r.lines.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("line %d: is over %d bytes long", r.line+1, maxLineBytes)
	}
	if r.lines.Err() != nil {
		return nil, r.lines.Err()
	}
	return nil, io.EOF
}

// find returns the place of a column in the header.
func find(header []string, column string) (int, error) {
	found := -1
	for place, name := range header {
		if !strings.EqualFold(strings.TrimSpace(name), column) {
			continue
		}
		if found >= 0 {
			return 0, fmt.Errorf("the header names the column %s twice", column)
		}
		found = place
	}
	if found < 0 {
		return 0, fmt.Errorf("the header lacks the column %s; it has %s", column, earmark.Clip(strings.Join(header, ",")))
	}
	return found, nil
}

func columnNames() string { return timeColumn + "," + contextColumn + "," + generatedColumn }

func parseTime(text string) (time.Time, error) {
	text = strings.TrimSpace(text)
	for _, layout := range timeLayouts {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time such as 2023-11-16 18:17:03.9799600 or 2023-11-16T18:17:03Z", earmark.Clip(text))
}

func parseTokens(text string) (int64, error) {
	text = strings.TrimSpace(text)
	tokens, err := strconv.ParseInt(text, 10, 64)
	if err != nil || tokens < 0 || tokens > MaxRowTokens {
		return 0, fmt.Errorf("%q is not a whole number of tokens from 0 to %d", earmark.Clip(text), MaxRowTokens)
	}
	return tokens, nil
}

// Extent describes a whole trace.
type Extent struct {
	Rows        int64
	First, Last time.Time
	// RoomTokens is a limit that admits every row, in whatever order rows settle.
	RoomTokens int64
}

// Measure reads a trace to its end, or to maxRows rows if that is not 0. It finds faults of
// the file before anything is sent.
func Measure(r io.Reader, maxOutputTokens, maxRows int64) (Extent, error) {
	var extent Extent
	reader, err := NewReader(r)
	if err != nil {
		return extent, err
	}
	for maxRows == 0 || extent.Rows < maxRows {
		row, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return extent, err
		}
		if extent.Rows == 0 {
			extent.First = row.At
		}
		extent.Rows++
		extent.Last = row.At
		room := max(reservedTokens(row, maxOutputTokens), row.UsedTokens())
		if extent.RoomTokens > math.MaxInt64-room {
			return extent, fmt.Errorf("line %d: the tokens of the trace pass %d", reader.line, int64(math.MaxInt64))
		}
		extent.RoomTokens += room
	}
	if extent.Rows == 0 {
		return extent, errors.New("the trace has no rows")
	}
	return extent, nil
}
