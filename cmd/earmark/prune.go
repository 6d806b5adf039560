package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// pruneFlags are the flags of prune.
type pruneFlags struct {
	keep     time.Duration
	events   time.Duration
	dry      bool
	operator string
	asJSON   bool
}

func newPrune() *cobra.Command {
	s := &settings{}
	f := &pruneFlags{}
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove reservations that were settled long ago, with their entries",
		Long: fmt.Sprintf(`Remove reservations that were settled longer ago than --keep, with their entries.
Balances stay as they are: in every window an entry of the kind checkpoint replaces
the removed entries, and the audit still adds up. Prune removes nothing from a
window that has not ended, and nothing that is held or in review.

A removed reservation is unknown: its idempotency key is free again, and usage that
arrives for it must be charged with earmark usage. So prune keeps every settled
reservation for at least %.0f days. Events older than --keep-events are removed too.

It works in small batches while everything else runs. You may interrupt it and run
it again at any time.`, postgres.LeastKept.Hours()/24),
		Example: `  earmark prune --dry-run
  earmark prune --keep 2160h --database-url "$(earmark dev --print-database-url)"`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return usageError{err}
			}
			return withDatabase(s, f.run)(cmd, args)
		},
	}
	s.databaseFlags(cmd.Flags())
	cmd.Flags().DurationVar(&f.keep, "keep", postgres.DefaultKept, "how long a reservation is kept after it was settled, 720h at least")
	cmd.Flags().DurationVar(&f.events, "keep-events", postgres.DefaultEventsKept, "how long an event is kept, 168h at least")
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "only say what would be removed")
	cmd.Flags().StringVar(&f.operator, "as", "", "the `NAME` that the journal names (default: the user of this machine)")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	return cmd
}

// check refuses combinations of flags without meaning, before anything is done.
func (f *pruneFlags) check() error {
	if f.keep < postgres.LeastKept {
		return fmt.Errorf("--keep is %s; at least %s are allowed, since idempotency keys are kept for that long", f.keep, postgres.LeastKept)
	}
	if f.events < postgres.LeastEventsKept {
		return fmt.Errorf("--keep-events is %s; at least %s are allowed", f.events, postgres.LeastEventsKept)
	}
	if f.operator == "" {
		f.operator = thisUser()
	}
	if err := earmark.ValidateOperator(f.operator); err != nil {
		return fmt.Errorf("--as: %w", err)
	}
	return nil
}

func (f *pruneFlags) run(ctx context.Context, cmd *cobra.Command, pool *pgxpool.Pool) error {
	progress := &pruneProgress{out: cmd.ErrOrStderr(), terminal: isTerminal(cmd.ErrOrStderr()), began: time.Now()}
	report, err := postgres.New(pool).Prune(ctx, postgres.PruneOptions{
		Keep: f.keep, KeepEvents: f.events, Dry: f.dry, Actor: earmark.OperatorActor(f.operator), Progress: progress.show,
	})
	progress.end()
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted; what was removed by then is complete, and another run goes on")
	}
	if err != nil && report.LookedAt == 0 {
		return err
	}
	return errors.Join(f.print(cmd.OutOrStdout(), report), err)
}

func (f *pruneFlags) print(out io.Writer, report postgres.PruneReport) error {
	if f.asJSON {
		return printJSON(out, report)
	}
	what := fmt.Sprintf("%s reservations that were settled more than %s ago, and %s entries of theirs",
		earmark.FormatAmount(report.Reservations), days(f.keep), earmark.FormatAmount(report.Entries))
	stay := report.LookedAt - report.Reservations
	var err error
	if f.dry {
		_, err = fmt.Fprintf(out, "would remove %s; %s older ones would stay: open, settled later, or in a window that runs\n", what, earmark.FormatAmount(stay))
	} else {
		_, err = fmt.Fprintf(out, "removed %s; %s older ones stay: open, settled later, or in a window that runs; and %s events\n",
			what, earmark.FormatAmount(stay), earmark.FormatAmount(report.Events))
	}
	return err
}

func days(d time.Duration) string {
	if n := d.Hours() / 24; n == float64(int(n)) {
		return fmt.Sprintf("%.0f days", n)
	}
	return d.String()
}

// How often progress is printed.
const (
	pruneRedrawEvery = 250 * time.Millisecond
	pruneLineEvery   = 5 * time.Second
)

// pruneProgress prints how far a prune is: on a terminal in one line that it redraws,
// elsewhere in occasional lines.
type pruneProgress struct {
	out      io.Writer
	terminal bool
	began    time.Time
	shown    time.Time
}

func (p *pruneProgress) show(report postgres.PruneReport) {
	every := pruneLineEvery
	if p.terminal {
		every = pruneRedrawEvery
	}
	now := time.Now()
	if p.shown.IsZero() && !p.terminal {
		p.shown = p.began // a short run prints nothing
	}
	if now.Sub(p.shown) < every {
		return
	}
	p.shown = now
	const width = 24
	total := max(report.Total, report.LookedAt, 1)
	full := int(width * report.LookedAt / total)
	line := fmt.Sprintf("%3d%% %s%s %s of %s looked at, %s removed, %.0f/s", 100*report.LookedAt/total, strings.Repeat("█", full), strings.Repeat("░", width-full),
		earmark.FormatAmount(report.LookedAt), earmark.FormatAmount(total), earmark.FormatAmount(report.Reservations),
		float64(report.LookedAt)/max(now.Sub(p.began).Seconds(), 1e-3))
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[2K%s", line)
	} else {
		fmt.Fprintln(p.out, line)
	}
}

// end removes the line, so that the summary replaces it.
func (p *pruneProgress) end() {
	if p.terminal && !p.shown.IsZero() {
		fmt.Fprint(p.out, "\r\x1b[2K")
	}
}
