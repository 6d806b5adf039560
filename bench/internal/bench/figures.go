package bench

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/earmark-dev/earmark"
)

// Figure is one number, measured once a round.
type Figure struct {
	Key    string    `json:"key"`
	Unit   string    `json:"unit"`
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Rounds []float64 `json:"rounds"`
}

// figures are what was measured, by key.
type figures struct {
	byKey map[string]*Figure
	order []string
}

// add adds a round's value. What could not be measured is not a number, and is left out.
func (f *figures) add(key, unit string, value float64) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return
	}
	if f.byKey == nil {
		f.byKey = make(map[string]*Figure)
	}
	figure, known := f.byKey[key]
	if !known {
		figure = &Figure{Key: key, Unit: unit}
		f.byKey[key] = figure
		f.order = append(f.order, key)
	}
	figure.Rounds = append(figure.Rounds, value)
	figure.Median, figure.Min, figure.Max = median(figure.Rounds), slices.Min(figure.Rounds), slices.Max(figure.Rounds)
}

// ratio divides two figures round by round, and keeps the result as a figure.
func (f *figures) ratio(key, over, under string) {
	a, b := f.byKey[over], f.byKey[under]
	if a == nil || b == nil {
		return
	}
	for i := range min(len(a.Rounds), len(b.Rounds)) {
		f.add(key, "×", a.Rounds[i]/b.Rounds[i])
	}
}

// list is every figure, in the order they were first measured.
func (f *figures) list() []Figure {
	list := make([]Figure, 0, len(f.order))
	for _, key := range f.order {
		list = append(list, *f.byKey[key])
	}
	return list
}

// text returns a figure's median and spread, such as "131 (118–140)".
func (f *figures) text(key string) string {
	figure := f.byKey[key]
	if figure == nil {
		return notMeasured
	}
	return withSpread(figure.Median, figure.Min, figure.Max)
}

// short returns only a figure's median.
func (f *figures) short(key string) string {
	figure := f.byKey[key]
	if figure == nil {
		return notMeasured
	}
	return number(figure.Median)
}

const notMeasured = "–"

func withSpread(middle, least, most float64) string {
	if number(least) == number(most) {
		return number(middle)
	}
	return fmt.Sprintf("%s (%s–%s)", number(middle), number(least), number(most))
}

// number formats a number with its significant digits.
func number(v float64) string {
	const thousands = 1000
	switch size := math.Abs(v); {
	case v == math.Trunc(v) && size < thousands:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case size >= 100:
		return earmark.FormatAmount(int64(math.Round(v)))
	case size >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case size >= 0.1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
