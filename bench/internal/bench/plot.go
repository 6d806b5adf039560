package bench

import (
	"cmp"
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
)

// Measures of the plot, in pixels.
const (
	plotWidth, plotHeight             = 760, 440
	leftMargin, rightMargin           = 70, 150
	topMargin, bottomMargin           = 48, 58
	plotRight, plotBottom             = plotWidth - rightMargin, plotHeight - bottomMargin
	labelGap                          = 15 // between labels at the ends of lines
	gridColour, inkColour, dimColour  = "#dddddd", "#222222", "#666666"
	bareColour, oursColour            = "#4878a8", "#c4622d"
	p50Style, p99Style                = "", ` stroke-dasharray="6 4"`
	fontStyle                         = `font-family="system-ui, sans-serif"`
	ticksWanted                       = 6
	smallestTickMS, largestTickFactor = 0.1, 10
)

// ErrNoSweep says that there is nothing to plot.
var ErrNoSweep = errors.New("there is nothing to plot: the scenario sweep did not run to its end")

// Plot writes latency against offered load as SVG. The latency's axis is
// logarithmic, since past saturation it grows without bound.
func (r *Report) Plot(out io.Writer) error {
	if len(r.Sweep) == 0 {
		return ErrNoSweep
	}
	p := newPlot(r.Sweep)
	p.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" %s font-size="12">`,
		plotWidth, plotHeight, plotWidth, plotHeight, fontStyle)
	p.printf(`<title>Latency of an admission against offered load</title><rect width="100%%" height="100%%" fill="#ffffff"/>`)
	p.text(leftMargin, 22, "start", inkColour, 15, "Latency of an admission against offered load")
	p.text(leftMargin, 39, "start", dimColour, 12, fmt.Sprintf("open loop, %d cores; solid p50, dashed p99", r.Machine.Cores))
	p.axes()
	for i, curve := range r.Sweep {
		colour := []string{bareColour, oursColour}[i%2]
		p.line(curve, colour, p50Style, " p50", func(q Point) float64 { return q.P50MS })
		p.line(curve, colour, p99Style, " p99", func(q Point) float64 { return q.P99MS })
	}
	p.labels()
	p.printf("</svg>")
	_, err := io.WriteString(out, p.body.String())
	return err
}

type plot struct {
	body             strings.Builder
	mostLoad         float64
	leastMS, mostMS  float64
	ends             []label
	leastExp, mostEx float64
}

type label struct {
	y            float64
	colour, text string
}

func newPlot(curves []Curve) *plot {
	p := &plot{leastMS: math.Inf(1)}
	for _, curve := range curves {
		for _, q := range curve.Points {
			p.mostLoad = max(p.mostLoad, q.OfferedPerSecond)
			p.leastMS, p.mostMS = min(p.leastMS, q.P50MS), max(p.mostMS, q.P99MS)
		}
	}
	p.leastMS = max(p.leastMS, smallestTickMS)
	p.leastExp = math.Floor(math.Log10(p.leastMS))
	p.mostEx = max(math.Ceil(math.Log10(p.mostMS)), p.leastExp+1)
	return p
}

func (p *plot) printf(format string, args ...any) { fmt.Fprintf(&p.body, format+"\n", args...) }

func (p *plot) text(x, y float64, anchor, colour string, size int, text string) {
	p.printf(`<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s" font-size="%d">%s</text>`, x, y, anchor, colour, size, html.EscapeString(text))
}

func (p *plot) x(load float64) float64 {
	return leftMargin + load/(p.mostLoad*1.02)*(plotRight-leftMargin)
}

func (p *plot) y(ms float64) float64 {
	share := (math.Log10(max(ms, smallestTickMS)) - p.leastExp) / (p.mostEx - p.leastExp)
	return plotBottom - share*(plotBottom-topMargin)
}

func (p *plot) axes() {
	for exponent := p.leastExp; exponent <= p.mostEx; exponent++ {
		for _, digit := range []float64{1, 2, 5} {
			ms := digit * math.Pow(largestTickFactor, exponent)
			if exponent == p.mostEx && digit > 1 {
				break
			}
			p.printf(`<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="%s"/>`, leftMargin, p.y(ms), plotRight, p.y(ms), gridColour)
			p.text(leftMargin-8, p.y(ms)+4, "end", dimColour, 12, number(ms))
		}
	}
	step := niceStep(p.mostLoad / ticksWanted)
	for load := 0.0; load <= p.mostLoad*1.02; load += step {
		p.printf(`<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>`, p.x(load), plotBottom, p.x(load), plotBottom+5, dimColour)
		p.text(p.x(load), plotBottom+20, "middle", dimColour, 12, number(load))
	}
	p.printf(`<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s"/>`, leftMargin, plotBottom, plotRight, plotBottom, dimColour)
	p.text((leftMargin+plotRight)/2, plotBottom+44, "middle", inkColour, 13, "offered load, lifecycles a second")
	p.printf(`<text transform="translate(18 %d) rotate(-90)" text-anchor="middle" fill="%s" font-size="13">latency, ms (logarithmic)</text>`,
		(topMargin+plotBottom)/2, inkColour)
}

// niceStep rounds up to 1, 2 or 5 times a power of ten.
func niceStep(least float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(max(least, 1e-9))))
	for _, digit := range []float64{1, 2, 5} {
		if digit*power >= least {
			return digit * power
		}
	}
	return 10 * power
}

func (p *plot) line(curve Curve, colour, style, suffix string, of func(Point) float64) {
	var points []string
	for _, q := range curve.Points {
		points = append(points, fmt.Sprintf("%.1f,%.1f", p.x(q.OfferedPerSecond), p.y(of(q))))
		p.printf(`<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`, p.x(q.OfferedPerSecond), p.y(of(q)), colour)
	}
	p.printf(`<polyline points="%s" fill="none" stroke="%s" stroke-width="2"%s/>`, strings.Join(points, " "), colour, style)
	if n := len(curve.Points); n > 0 {
		p.ends = append(p.ends, label{p.y(of(curve.Points[n-1])), colour, curve.Way + suffix})
	}
}

// labels names the lines at their ends, apart from each other.
func (p *plot) labels() {
	placed := make([]float64, 0, len(p.ends))
	for _, l := range slices.SortedFunc(slices.Values(p.ends), func(a, b label) int { return cmp.Compare(a.y, b.y) }) {
		y := l.y
		if n := len(placed); n > 0 {
			y = max(y, placed[n-1]+labelGap)
		}
		placed = append(placed, y)
		p.text(plotRight+10, y+4, "start", l.colour, 12, l.text)
	}
}
