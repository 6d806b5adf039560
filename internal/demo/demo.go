package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark/client"
)

// Bounds of what can be asked for.
const (
	MinCallers     = 2
	MaxCallers     = 200
	DefaultCallers = 50
	MinRounds      = 1
	MaxRounds      = 20
	DefaultRounds  = 10
)

// Options configure a demo.
type Options struct {
	Scope   string // of the run's budgets, which must be new
	Callers int
	Rounds  int
	// ShowWay is called after each strategy has run, and ShowStep after each step of the
	// lifecycle; an empty step separates its two halves.
	ShowWay  func(Result)
	ShowStep func(Step)
	// ShowRaced is called between the race and the lifecycle.
	ShowRaced func(*Report)
}

// Report is the result of a demo.
type Report struct {
	Scope         string    `json:"scope"`
	StartedAt     time.Time `json:"started_at"`
	Callers       int       `json:"callers"`
	Rounds        int       `json:"rounds"`
	LimitTokens   int64     `json:"limit_tokens"`
	RequestTokens int64     `json:"request_tokens"`
	ModelMS       int64     `json:"model_ms"`
	Connections   int32     `json:"connections"` // to Postgres, of the usual ways
	Ways          []Result  `json:"ways"`
	Audit         Audit     `json:"audit"`
	Story         *Story    `json:"story"`
}

// Fits is how many requests fit into the limit.
func (r *Report) Fits() int64 { return r.LimitTokens / r.RequestTokens }

// Err describes what Earmark did wrong; nil if nothing.
func (r *Report) Err() error {
	var wrong []string
	for _, check := range r.Audit.Checks {
		if check.Expected != check.Found {
			wrong = append(wrong, fmt.Sprintf("%s: %s, not %s", check.What, amount(check.Found), amount(check.Expected)))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("the ledger differs from the callers' answers: %s", strings.Join(wrong, "; "))
}

// NewReport returns the report of a run that has not begun.
func NewReport(pool *pgxpool.Pool, options Options) *Report {
	return &Report{
		Scope: options.Scope, StartedAt: time.Now().UTC(), Callers: options.Callers, Rounds: options.Rounds,
		LimitTokens: limitTokens, RequestTokens: requestTokens, ModelMS: modelTime.Milliseconds(),
		Connections: pool.Config().MaxConns, Ways: []Result{},
	}
}

// Run runs the race and the lifecycle, and fills the report. It drops the scratch schema at
// the end, even if ctx has ended. The report's Err says what Earmark did wrong; an error
// here means that the demo could not finish.
func (r *Report) Run(ctx context.Context, api *client.Client, pool *pgxpool.Pool, options Options) (err error) {
	scratch, err := openScratch(ctx, pool)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.close(ctx)) }()
	if err := warmUp(ctx, api, pool, options.Callers); err != nil {
		return err
	}
	service := &service{api: api, scope: options.Scope}
	defer service.archive(ctx)
	for _, way := range append(usualWays(scratch), service.way()) {
		result, err := race(ctx, way, options.Callers, options.Rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		r.Ways = append(r.Ways, result)
		options.ShowWay(result)
	}
	r.Audit = service.audit()
	options.ShowRaced(r)
	r.Story, err = service.tell(ctx, scratch, options.ShowStep)
	return err
}

// warmUp opens the connections of both sides, so that the first round does not pay
// for them.
func warmUp(ctx context.Context, api *client.Client, pool *pgxpool.Pool, callers int) error {
	group, ctx := errgroup.WithContext(ctx)
	for range callers {
		group.Go(func() error { return errors.Join(pool.Ping(ctx), api.Health(ctx)) })
	}
	return group.Wait()
}
