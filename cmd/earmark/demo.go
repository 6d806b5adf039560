package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/demo"
	"github.com/earmark-dev/earmark/internal/devstack"
)

// devDatabaseURL is the database of `make dev`.
func devDatabaseURL() (string, error) {
	d := devSettings{}
	if err := d.findDataDir(); err != nil {
		return "", err
	}
	return devstack.PostgresURL(d.postgresDir(), devPostgresPort), nil
}

// demoSettings are the flags of demo.
type demoSettings struct {
	settings
	demo.Options
	connection
	asJSON bool
}

func newDemo() *cobra.Command {
	s := &demoSettings{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See the race for a limit happen in the usual code, and not in Earmark",
		Long: `See the race for a limit happen in the usual code, and not in Earmark, on a
running stack (make dev). Callers race for one limit, round after round: by the
usual ways, for real, on a scratch table in a schema of its own (earmark_demo,
dropped at the end, even on Ctrl-C), and by Earmark over its HTTP API. Then it
follows a reservation step by step, and one whose process dies.

Every run has budgets of its own under demo/. Exits with 1 if Earmark overspent
or its ledger differs from the callers' answers.`,
		Example: `  earmark demo
  earmark demo --callers 100 --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(s.load(cmd), s.check()); err != nil {
				return err
			}
			return s.run(cmd)
		},
	}
	flags := cmd.Flags()
	s.connection.flags(cmd)
	flags.StringVar(&s.DatabaseURL, "database-url", "", "Postgres connection string for the scratch table (env EARMARK_DATABASE_URL; default: that of make dev)")
	flags.IntVar(&s.Callers, "callers", demo.DefaultCallers, "how many callers race in a round")
	flags.IntVar(&s.Rounds, "rounds", demo.DefaultRounds, "how many rounds each way runs")
	flags.BoolVar(&s.asJSON, "json", false, "print the numbers as JSON, in the end")
	return cmd
}

func (s *demoSettings) check() error {
	switch {
	case s.Callers < demo.MinCallers || s.Callers > demo.MaxCallers:
		return usageError{fmt.Errorf("--callers is %d; %d to %d are allowed", s.Callers, demo.MinCallers, demo.MaxCallers)}
	case s.Rounds < demo.MinRounds || s.Rounds > demo.MaxRounds:
		return usageError{fmt.Errorf("--rounds is %d; %d to %d are allowed", s.Rounds, demo.MinRounds, demo.MaxRounds)}
	}
	return nil
}

func (s *demoSettings) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	if err := s.connect(cmd); err != nil {
		return err
	}
	api, err := s.client("earmark-demo")
	if err != nil {
		return err
	}
	if s.DatabaseURL == "" {
		if s.DatabaseURL, err = devDatabaseURL(); err != nil {
			return err
		}
	}
	pool, err := openPool(ctx, s.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := reach(ctx, api, s.url); err != nil {
		return err
	}
	if err := reachDatabase(ctx, pool); err != nil {
		return err
	}
	s.Scope = "demo/" + time.Now().UTC().Format("20060102-150405.000000")
	return s.show(ctx, cmd, api, pool)
}

func (s *demoSettings) show(ctx context.Context, cmd *cobra.Command, api *client.Client, pool *pgxpool.Pool) error {
	report := demo.NewReport(pool, s.Options)
	stage := demoStage{screen: screenOf(cmd.OutOrStdout()), report: report}
	s.ShowWay, s.ShowRaced, s.ShowStep = stage.way, stage.raced, stage.step
	if s.asJSON {
		s.ShowWay, s.ShowRaced, s.ShowStep = func(demo.Result) {}, func(*demo.Report) {}, func(demo.Step) {}
	} else {
		stage.begin()
	}
	err := report.Run(ctx, api, pool, s.Options)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("stopped; what was reserved expires by itself")
	case err != nil:
		return errors.Join(report.Err(), err)
	case s.asJSON:
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	default:
		stage.end()
	}
	return errors.Join(report.Err(), err)
}

// reachDatabase checks that there is a database.
func reachDatabase(ctx context.Context, pool *pgxpool.Pool) error {
	const timeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := pool.Ping(ctx)
	if err == nil {
		return nil
	}
	config := pool.Config().ConnConfig
	address := net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	var network *net.OpError
	var refused *pgconn.PgError
	switch { // pgx's own message has a line for every address
	case errors.As(err, &network):
		err = network
	case errors.As(err, &refused):
		err = errors.New(refused.Message)
	}
	return fmt.Errorf("no database %s answers at %s (%w); run `make dev` in another terminal, or name one with --database-url", config.Database, address, err)
}
