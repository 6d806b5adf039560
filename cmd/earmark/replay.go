package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/replay"
)

// defaultMaxOutputTokens is small enough that a real trace has rows with more usage.
const defaultMaxOutputTokens = 512

// replaySettings are the flags of replay.
type replaySettings struct {
	replay.Options
	connection
	limit  int64
	asJSON bool
}

func newReplay() *cobra.Command {
	s := &replaySettings{}
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Replay a trace of real AI requests against a running server, and audit it to the token",
		Long: fmt.Sprintf(`Replay a trace of real AI requests against a running server (make dev), and check
in the end that the ledger holds exactly what they used.

The trace is CSV with the columns TIMESTAMP, ContextTokens and GeneratedTokens, in
order of time; other columns are ignored. Each row arrives at its own time divided
by --speed, however slow the server is, unless %d rows are in flight: then it is
sent late, and counted as delayed. A row reserves its context and
--max-output-tokens, waits as long as a model would work (%s, and %s
for each generated token, ±%.0f%%, divided by --speed), and commits what it really
used, also where that is more. A denied row is not sent to the model.

A run has a budget of its own, so runs never collide. An admission without an
answer is asked for again with the same key; a row that stays without a decision is
looked up in the end. Latencies count from the moment at which a row was due.

Ctrl-C stops the arrivals; what is in flight settles and is audited. A second one
ends the run at once; what it held then expires by itself within five minutes or so.
Exits with 1 when the audit finds a mismatch or a row has no decision.`,
			replay.MaxInFlight, replay.PrefillTime, replay.TokenTime, replay.Jitter*100),
		Example: `  earmark replay --trace examples/trace.csv --speed 10
  earmark replay --trace examples/trace.csv --speed 10 --limit 200000   # runs out on the way`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.check(cmd); err != nil {
				return usageError{err}
			}
			return s.run(cmd)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&s.Path, "trace", "", "CSV file of requests (required)")
	flags.Float64Var(&s.Speed, "speed", 1, "how many seconds of the trace pass in one second")
	flags.Int64Var(&s.limit, "limit", 0, "limit of the run's budget in tokens (default: room for all rows)")
	flags.Int64Var(&s.MaxOutputTokens, "max-output-tokens", defaultMaxOutputTokens, "tokens that a row reserves on top of its context")
	s.connection.flags(cmd)
	flags.StringVar(&s.Scope, "scope", "", "scope of the run's budget (default: replay/ and the time)")
	flags.Int64Var(&s.MaxRows, "rows", 0, "replay only so many rows (default: all)")
	flags.Uint64Var(&s.Seed, "seed", 1, "seed of how long the model works on each row")
	flags.BoolVar(&s.asJSON, "json", false, "print the report as JSON")
	return cmd
}

// check refuses combinations of flags without meaning, before anything is done.
func (s *replaySettings) check(cmd *cobra.Command) error {
	switch {
	case s.Path == "":
		return errors.New("--trace is missing: give a CSV file such as examples/trace.csv")
	case !(s.Speed > 0 && s.Speed <= replay.MaxSpeed): // false also for NaN
		return fmt.Errorf("--speed %g is out of range: above 0, at most %d", s.Speed, replay.MaxSpeed)
	case s.MaxOutputTokens < 1 || s.MaxOutputTokens > replay.MaxRowTokens:
		return fmt.Errorf("--max-output-tokens %d is out of range: 1 to %d", s.MaxOutputTokens, replay.MaxRowTokens)
	case s.limit < 0:
		return fmt.Errorf("--limit %d is negative", s.limit)
	case s.MaxRows < 0:
		return fmt.Errorf("--rows %d is negative", s.MaxRows)
	}
	if s.Scope != "" {
		if err := earmark.ValidateScope("--scope", s.Scope); err != nil {
			return err
		}
	}
	if cmd.Flags().Changed("limit") {
		s.Limit = &s.limit
	}
	file, err := os.Open(s.Path)
	if err != nil {
		return fmt.Errorf("--trace: %w", err)
	}
	return file.Close()
}

func (s *replaySettings) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	if err := s.connect(cmd); err != nil {
		return err
	}
	api, err := s.client("earmark-replay", client.WithMaxAttempts(1))
	if err != nil {
		return err
	}
	if err := reach(ctx, api, s.url); err != nil {
		return err
	}
	s.Progress = replay.Progress{Out: cmd.ErrOrStderr(), Terminal: isTerminal(cmd.ErrOrStderr())}
	report, err := replay.Run(ctx, api, s.Options)
	if report == nil {
		return err
	}
	if err := s.print(cmd, report); err != nil {
		return err
	}
	return errors.Join(report.Err(), err)
}

// reach checks that there is a server, and that it is ready.
func reach(ctx context.Context, api *client.Client, address string) error {
	_, err := api.Ready(ctx)
	var unreachable *url.Error
	if errors.As(err, &unreachable) {
		return fmt.Errorf("no server answers at %s (%w); run `make dev` in another terminal, or name one with --url", address, unreachable.Err)
	}
	if err != nil {
		return fmt.Errorf("the server at %s is not ready: %w", address, err)
	}
	return nil
}

func (s *replaySettings) print(cmd *cobra.Command, report *replay.Report) error {
	out := cmd.OutOrStdout()
	if !s.asJSON {
		return report.Print(out)
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
}

// isTerminal reports whether out is a character device: a file or a pipe cannot be redrawn.
func isTerminal(out any) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
