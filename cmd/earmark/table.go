package main

import (
	"strings"
	"unicode/utf8"
)

// column is one column of a table, with its behaviour on a narrow terminal.
type column struct {
	title string
	right bool // aligned, for amounts
	// shrink is the order in which columns get narrower, down to least characters; 0 means
	// never. An id is shown whole or in its least width.
	shrink int
	least  int
	isID   bool
	inside bool // cut in the middle, because both ends of a path matter
	// drop is the order in which columns are left out once none can shrink; 0 means never.
	drop int
}

// cell is a text in a table.
type cell struct {
	text  string
	style style
}

const columnGap = "  "

// shortID is the length of an id on a narrow terminal: its prefix and eight characters,
// which are enough to name it.
const shortID = len("rsv_") + idPrefixLength + 1

// table prints rows under titles. It leaves out columns without any value.
func (p *sheet) table(columns []column, rows [][]cell) {
	for _, row := range rows {
		for i := range row {
			row[i].text = clean(row[i].text)
		}
	}
	shown, widths := fit(columns, rows, p.columns)
	titles := make([]cell, len(columns))
	for i, c := range columns {
		titles[i] = cell{c.title, dim}
	}
	for _, row := range append([][]cell{titles}, rows...) {
		var line strings.Builder
		for position, i := range shown {
			text := cut(row[i].text, widths[i], columns[i].inside)
			last := position == len(shown)-1
			padding := strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(text)))
			if position > 0 {
				line.WriteString(columnGap)
			}
			switch {
			case columns[i].right:
				line.WriteString(padding + p.paint(text, row[i].style))
			case last:
				line.WriteString(p.paint(text, row[i].style))
			default:
				line.WriteString(p.paint(text, row[i].style) + padding)
			}
		}
		p.line("%s", strings.TrimRight(line.String(), " "))
	}
}

// fit chooses the columns and their widths so that a line has at most bound characters; 0
// means no bound.
func fit(columns []column, rows [][]cell, bound int) (shown []int, widths []int) {
	natural := make([]int, len(columns))
	for i := range columns {
		for _, row := range rows {
			natural[i] = max(natural[i], utf8.RuneCountInString(row[i].text))
		}
		if natural[i] > 0 { // otherwise no row has a value
			shown = append(shown, i)
			natural[i] = max(natural[i], utf8.RuneCountInString(columns[i].title))
		}
	}
	for {
		widths = append([]int(nil), natural...)
		excess := excessOf(shown, widths, bound)
		for order := 1; excess > 0 && order <= len(columns); order++ {
			for _, i := range shown {
				if columns[i].shrink == order {
					excess -= narrow(columns[i], &widths[i], excess)
				}
			}
		}
		if excess <= 0 || bound == 0 {
			return shown, widths
		}
		victim := -1
		for position, i := range shown {
			if columns[i].drop > 0 && (victim < 0 || columns[i].drop < columns[shown[victim]].drop) {
				victim = position
			}
		}
		if victim < 0 {
			return shown, widths // the terminal has to wrap
		}
		shown = append(append([]int(nil), shown[:victim]...), shown[victim+1:]...)
	}
}

func excessOf(shown, widths []int, bound int) int {
	if bound == 0 {
		return 0
	}
	total := len(columnGap) * (len(shown) - 1)
	for _, i := range shown {
		total += widths[i]
	}
	return total - bound
}

// narrow makes a column narrower and returns by how much.
func narrow(c column, width *int, excess int) int {
	by := min(excess, *width-max(c.least, utf8.RuneCountInString(c.title)))
	if c.isID {
		by = *width - max(c.least, utf8.RuneCountInString(c.title))
	}
	by = max(0, by)
	*width -= by
	return by
}

// cut shortens a text to width characters.
func cut(text string, width int, inside bool) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	if inside {
		tail := (width - 1) / 2
		return string(runes[:width-1-tail]) + "…" + string(runes[len(runes)-tail:])
	}
	return string(runes[:width-1]) + "…"
}
