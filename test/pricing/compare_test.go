//go:build compareprices

package pricing_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/pricing"
)

var (
	packages = flag.String("packages", "", "directory with node_modules and the Python environment venv")
	random   = flag.Int("random", 20_000, "generated cases beside the systematic ones, for each program that takes them")
	seed     = flag.Uint64("seed", 1, "of the generated cases")
	report   = flag.String("report", "", "file for the table of differences")
	record   = flag.String("record", "", "file for the cases and answers of the short form")
)

// program is another implementation.
type program struct {
	name    string
	command []string
	read    func([]byte, pricing.ImportOptions) ([]pricing.Entry, []pricing.Finding, error)
	// base makes the case of an entry, with the names that the program needs; false leaves the entry out.
	base func(e *pricing.Entry, table map[string]json.RawMessage) (testCase, bool)
	// share of the generated cases: one takes LiteLLM a hundred times as long.
	share float64
	// comparable leaves out shapes that the program cannot be asked.
	comparable func(c *testCase) bool
}

var programs = []program{
	{
		name: "genai-prices", command: []string{"node", "others.mjs", "genai"}, read: pricing.ImportGenAIPrices, share: 1,
		base: func(e *pricing.Entry, _ map[string]json.RawMessage) (testCase, bool) {
			return testCase{Provider: e.Provider, Model: e.Model, Key: e.Model}, true
		},
		comparable: func(c *testCase) bool { return c.Tier == "" },
	},
	{
		name: "LiteLLM", command: []string{"venv/bin/python", "litellm_cost.py"}, read: pricing.ImportLiteLLM, share: 0.1,
		base: func(e *pricing.Entry, table map[string]json.RawMessage) (testCase, bool) {
			key := e.Model
			if len(e.Aliases) > 0 {
				key = e.Aliases[0]
			}
			var entry struct {
				Provider string `json:"litellm_provider"`
				Mode     string `json:"mode"`
			}
			if json.Unmarshal(table[key], &entry) != nil || !slices.Contains([]string{"chat", "responses", "completion"}, entry.Mode) {
				return testCase{}, false
			}
			_, twice := table[e.Provider+"/"+key]
			return testCase{Provider: e.Provider, Model: e.Model, Key: key, LiteLLMProvider: entry.Provider, Twice: twice}, true
		},
		comparable: func(*testCase) bool { return true },
	},
	{
		name: "tokenlens", command: []string{"node", "others.mjs", "tokenlens"}, read: pricing.ImportModelsDev, share: 0.1,
		base: func(e *pricing.Entry, _ map[string]json.RawMessage) (testCase, bool) {
			return testCase{Provider: e.Provider, Model: e.Model, Key: e.Model}, true
		},
		comparable: func(c *testCase) bool { // it knows neither audio nor images nor durations
			return c.Tier == "" && c.AudioIn+c.AudioOut+c.ImageIn+c.ImageOut+c.CacheWrite5m+c.CacheWrite1h == 0
		},
	},
}

// TestComparePrices prices the same usage by the same table here and there, and fails for each difference that
// differences does not explain.
func TestComparePrices(t *testing.T) {
	require.NotEmpty(t, *packages, "run make compare-prices")
	var text strings.Builder
	text.WriteString("| program | models | cases | equal | refused by both | differences |\n|---|---|---|---|---|---|\n")
	var details strings.Builder
	var recorded []recordedModel
	for _, p := range programs {
		outcomes, models := p.run(t)
		equal, bothRefuse := 0, 0
		counts := map[string]int{}
		example := map[string]*outcome{}
		var unexplained []*outcome
		for i := range outcomes {
			o := &outcomes[i]
			switch why := explain(p.name, o); why {
			case equalPrice:
				equal++
			case bothRefused:
				bothRefuse++
			case "":
				unexplained = append(unexplained, o)
			default:
				counts[why]++
				if _, found := example[why]; !found {
					example[why] = o
				}
			}
		}
		fmt.Fprintf(&text, "| %s | %d | %d | %d | %d | %d |\n", p.name, models, len(outcomes), equal, bothRefuse, len(outcomes)-equal-bothRefuse)
		for _, d := range differences {
			if n := counts[d.why]; n > 0 {
				o := example[d.why]
				fmt.Fprintf(&details, "| %s | %d | %s | `%s`, %s, %d in: %s here, %s there |\n", p.name, n, d.why, o.Case.Key, o.Case.Shape, o.Case.In, here(o), there(o))
			}
		}
		failed := map[string]bool{} // one case of each model is enough
		for _, o := range unexplained {
			if len(failed) < 25 && !failed[o.Case.Key] {
				failed[o.Case.Key] = true
				t.Errorf("%s, one of %d: %+v\nhere %s %v, there %s", p.name, len(unexplained), o.Case, here(o), o.Error, there(o))
			}
		}
		recorded = append(recorded, chosen(p.name, outcomes)...)
	}
	table := text.String() + "\n| program | cases | difference | example |\n|---|---|---|---|\n" + details.String()
	t.Log("\n" + table)
	if *record != "" {
		writeRecord(t, *record, recorded)
	}
	if *report != "" {
		require.NoError(t, os.WriteFile(*report, []byte(table), 0o644))
	}
}

// run prices all cases here and there.
func (p *program) run(t *testing.T) ([]outcome, int) {
	t.Helper()
	raw, err := p.start("table").Output()
	require.NoError(t, err, p.name)
	entries, findings, err := p.read(raw, pricing.ImportOptions{})
	require.NoError(t, err)
	t.Logf("%s: %d entries, %d findings", p.name, len(entries), len(findings))
	table, err := pricing.NewTable(entries...)
	require.NoError(t, err)
	var members map[string]json.RawMessage
	_ = json.Unmarshal(raw, &members) // not all tables are objects, and only LiteLLM's is needed

	var cases, bases []testCase
	var models []*pricing.Entry
	seen := map[string]bool{}
	for _, e := range sortedEntries(entries) {
		base, ok := p.base(e, members)
		if name := e.Provider + "/" + e.Model; ok && !seen[name] {
			seen[name] = true
			current, err := table.Find(e.Provider, e.Model, base.atCompared().query().Time)
			if err != nil {
				continue // its first price begins later
			}
			bases, models = append(bases, base), append(models, current)
			cases = append(cases, systematicCases(current, base)...)
		}
	}
	r := rand.New(rand.NewPCG(*seed, 0))
	for range int(float64(*random) * p.share) {
		cases = append(cases, randomCase(r, bases, models))
	}
	cases = slices.DeleteFunc(cases, func(c testCase) bool { return !p.comparable(&c) })
	answers := p.ask(t, cases)
	outcomes := make([]outcome, len(cases))
	for i, c := range cases {
		entry, err := table.Find(c.Provider, c.Model, c.query().Time)
		require.NoError(t, err)
		charge, err := table.Price(c.usage(), c.query())
		outcomes[i] = outcome{Case: c, Entry: entry, Error: err, Theirs: answers[i]}
		if err == nil {
			outcomes[i].Ours = charge.USD()
		}
	}
	return outcomes, len(bases)
}

func (c testCase) atCompared() testCase { c.At = comparedAt; return c }

// start makes the command, whose script lies here and whose packages lie there.
func (p *program) start(args ...string) *exec.Cmd {
	directory, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	script := directory + "/" + p.command[1]
	name := p.command[0]
	if strings.Contains(name, "/") {
		name = *packages + "/" + name
	}
	command := exec.Command(name, slices.Concat([]string{script}, p.command[2:], args)...)
	command.Dir, command.Stderr = *packages, os.Stderr
	return command
}

// ask sends all cases and reads all answers.
func (p *program) ask(t *testing.T, cases []testCase) []answer {
	t.Helper()
	return exchange[testCase, answer](t, p.start(), cases)
}

// exchange sends one line for each question and reads one for each answer.
func exchange[Q, A any](t *testing.T, command *exec.Cmd, cases []Q) []A {
	t.Helper()
	in, err := command.StdinPipe()
	require.NoError(t, err)
	out, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	sent := make(chan error, 1)
	go func() {
		w := bufio.NewWriterSize(in, 1<<20)
		encoder := json.NewEncoder(w)
		for _, c := range cases {
			if err := encoder.Encode(c); err != nil {
				sent <- err
				return
			}
		}
		sent <- errors.Join(w.Flush(), in.Close())
	}()
	answers := make([]A, 0, len(cases))
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		var a A
		if !bytes.HasPrefix(scanner.Bytes(), []byte("{")) {
			continue // what a library has to say
		}
		require.NoError(t, json.Unmarshal(scanner.Bytes(), &a), scanner.Text())
		answers = append(answers, a)
	}
	require.NoError(t, scanner.Err())
	_, _ = io.Copy(io.Discard, out)
	require.NoError(t, <-sent)
	require.NoError(t, command.Wait())
	require.Len(t, answers, len(cases))
	return answers
}
