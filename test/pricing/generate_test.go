//go:build compareprices

package pricing_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/earmark-dev/earmark/pricing"
)

const comparedAt = "2026-11-27T12:00:00Z" // a Friday

// shapes are the kinds of usage that are compared, for a prompt of n tokens.
var shapes = []struct {
	name string
	make func(c *testCase, n int64)
}{
	{"plain", func(*testCase, int64) {}},
	{"cache read", func(c *testCase, n int64) { c.CacheRead = n / 2 }},
	{"all from cache", func(c *testCase, n int64) { c.CacheRead = n }},
	{"cache write", func(c *testCase, n int64) { c.CacheWrite = n / 3 }},
	{"cache write, 5 minutes", func(c *testCase, n int64) { c.CacheWrite, c.CacheWrite5m = n/3, n/3 }},
	{"cache write, 1 hour", func(c *testCase, n int64) { c.CacheWrite, c.CacheWrite1h = n/3, n/3 }},
	{"cache read and writes", func(c *testCase, n int64) {
		c.CacheRead, c.CacheWrite, c.CacheWrite5m, c.CacheWrite1h = n/2, n/4, n/8, n/4-n/8
	}},
	{"reasoning", func(c *testCase, _ int64) { c.Reasoning = c.Out / 2 }},
	{"audio in", func(c *testCase, n int64) { c.AudioIn = n / 4 }},
	{"image in", func(c *testCase, n int64) { c.ImageIn = n / 4 }},
	{"audio out", func(c *testCase, _ int64) { c.AudioOut = c.Out / 3 }},
	{"image out", func(c *testCase, _ int64) { c.ImageOut = c.Out / 3 }},
	{"mixed", func(c *testCase, n int64) { c.CacheRead, c.AudioIn, c.ImageIn, c.Reasoning = n/5, n/6, n/7, c.Out/4 }},
}

// systematicCases are all shapes of a model, and each at the edges of its tiers.
func systematicCases(e *pricing.Entry, base testCase) []testCase {
	sizes := []int64{1001}
	for _, tier := range e.Tiers {
		sizes = append(sizes, tier.Threshold-1, tier.Threshold, tier.Threshold+1, tier.Threshold+2)
	}
	tiers := []string{""}
	for _, v := range e.Variants {
		if v.When.ServiceTier != "" && v.When.ServiceTier != "batch" {
			tiers = append(tiers, v.When.ServiceTier)
		}
	}
	var cases []testCase
	for _, shape := range shapes {
		for _, n := range sizes {
			for _, tier := range tiers {
				c := base
				c.Shape, c.Tier, c.At, c.In, c.Out = shape.name, tier, comparedAt, n, 997
				shape.make(&c, n)
				cases = append(cases, c)
			}
		}
	}
	return cases
}

// randomCase is any usage of any of the models.
func randomCase(r *rand.Rand, bases []testCase, entries []*pricing.Entry) testCase {
	i := r.IntN(len(bases))
	c := bases[i]
	c.Shape, c.At = "random", comparedAt
	c.In, c.Out = r.Int64N(1_000_000), r.Int64N(100_000)
	if tiers := entries[i].Tiers; len(tiers) > 0 && r.IntN(3) == 0 {
		c.In = tiers[r.IntN(len(tiers))].Threshold + r.Int64N(5) - 2
	}
	part := func(of int64) int64 { return r.Int64N(of + 1) }
	if r.IntN(2) == 0 {
		c.CacheRead = part(c.In)
	}
	rest := c.In - c.CacheRead
	if r.IntN(4) == 0 {
		c.CacheWrite = part(rest)
		rest -= c.CacheWrite
		if r.IntN(2) == 0 {
			c.CacheWrite5m = part(c.CacheWrite)
			c.CacheWrite1h = c.CacheWrite - c.CacheWrite5m
		}
	}
	if r.IntN(6) == 0 {
		c.AudioIn = part(rest)
		rest -= c.AudioIn
	}
	if r.IntN(6) == 0 {
		c.ImageIn = part(rest)
	}
	if r.IntN(3) == 0 {
		c.Reasoning = part(c.Out)
	}
	if r.IntN(8) == 0 {
		c.AudioOut = part(c.Out - c.Reasoning)
	}
	return c
}

// sortedEntries gives the models of a table in a stable order.
func sortedEntries(entries []pricing.Entry) []*pricing.Entry {
	all := make([]*pricing.Entry, len(entries))
	for i := range entries {
		all[i] = &entries[i]
	}
	slices.SortFunc(all, func(a, b *pricing.Entry) int {
		return cmp.Or(strings.Compare(a.Provider, b.Provider), strings.Compare(a.Model, b.Model), a.From.Compare(b.From))
	})
	return all
}
