package bench

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Report is what a run measured.
type Report struct {
	StartedAt       time.Time   `json:"started_at"`
	TookSeconds     float64     `json:"took_seconds"`
	Machine         Machine     `json:"machine"`
	Scenarios       []string    `json:"scenarios"`
	Rounds          int         `json:"rounds"`
	DurationSeconds float64     `json:"duration_seconds"` // of one way in one round
	Clients         int         `json:"clients"`
	Quick           bool        `json:"quick"`
	Aims            []AimResult `json:"aims"`
	Notes           []string    `json:"notes"`
	Sweep           []Curve     `json:"sweep"`
	Figures         []Figure    `json:"figures"`
	Tables          []Table     `json:"-"`

	figures figures
}

// maxNotes bounds what is said about failed calls.
const maxNotes = 20

func (r *Report) note(format string, args ...any) {
	if len(r.Notes) < maxNotes {
		r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
	}
}

// Table is figures for people.
type Table struct {
	Title   string
	Columns []string
	Rows    [][]string
	Notes   []string
}

func (t *Table) row(cells ...string) { t.Rows = append(t.Rows, cells) }

// tables are all of the report's, the aims last.
func (r *Report) tables() []Table {
	verdicts := Table{Title: "Aims", Columns: []string{"", "aim", "measured (least–most)", "verdict"}}
	var missing []string
	for _, a := range r.Aims {
		if a.Measured == nil {
			missing = append(missing, a.Aim)
			continue
		}
		wanted := "none"
		if a.Op != none {
			wanted = strings.TrimSpace(a.Op + " " + strconv.FormatFloat(a.Threshold, 'f', -1, 64) + " " + a.Unit)
		}
		measured := strings.TrimSpace(withSpread(*a.Measured, *a.Min, *a.Max) + " " + a.Unit)
		verdicts.row(a.Aim, wanted, measured, a.Verdict)
	}
	if len(missing) > 0 {
		verdicts.Notes = []string{fmt.Sprintf("Not measured in this run, %d aims: %s.", len(missing), strings.Join(missing, "; "))}
	}
	return append(r.Tables[:len(r.Tables):len(r.Tables)], verdicts)
}

// conditions say how a run was made.
func (r *Report) conditions() []string {
	lines := r.Machine.lines()
	lines = append(lines, fmt.Sprintf("%s: %d rounds, %gs a way and round, %d clients unless said; the load driver runs on the same machine; %s in all",
		strings.Join(r.Scenarios, ", "), r.Rounds, r.DurationSeconds, r.Clients, time.Duration(r.TookSeconds*float64(time.Second)).Round(time.Second)))
	if r.Quick {
		lines = append(lines, "A quick run: it shows that all of this works. Its numbers mean little.")
	}
	return lines
}

// Text writes the report for a terminal.
func (r *Report) Text(out io.Writer) {
	for _, line := range r.conditions() {
		fmt.Fprintln(out, line)
	}
	for _, t := range r.tables() {
		t.text(out)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(out, "\n%s\n", note)
	}
}

func (t *Table) text(out io.Writer) {
	widths := make([]int, len(t.Columns))
	for _, row := range append([][]string{t.Columns}, t.Rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	fmt.Fprintf(out, "\n%s\n\n", t.Title)
	line := func(cells []string) {
		var text strings.Builder
		for i, cell := range cells {
			text.WriteString("  " + cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)))
		}
		fmt.Fprintln(out, strings.TrimRight(text.String(), " "))
	}
	line(t.Columns)
	for _, row := range t.Rows {
		line(row)
	}
	for _, note := range t.Notes {
		fmt.Fprintf(out, "  %s\n", note)
	}
}

// Markdown writes the report for a document.
func (r *Report) Markdown(out io.Writer) {
	fmt.Fprintf(out, "Measured on %s by `earmark bench`:\n\n", r.StartedAt.Format(time.DateOnly))
	for _, line := range r.conditions() {
		fmt.Fprintf(out, "- %s\n", line)
	}
	for _, t := range r.tables() {
		fmt.Fprintf(out, "\n**%s**\n\n", t.Title)
		fmt.Fprintf(out, "| %s |\n|%s\n", strings.Join(t.Columns, " | "), strings.Repeat("---|", len(t.Columns)))
		for _, row := range t.Rows {
			fmt.Fprintf(out, "| %s |\n", strings.Join(row, " | "))
		}
		for i, note := range t.Notes {
			if i == 0 {
				fmt.Fprintln(out)
			}
			fmt.Fprintf(out, "%s\n", note)
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintf(out, "\n%s\n", note)
	}
}
