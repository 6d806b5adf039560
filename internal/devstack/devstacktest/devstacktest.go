//go:build unix

// Package devstacktest gives the tests of one package a real Postgres, a real Temporal, or both: one of each
// for the test binary, started before its tests and stopped after them.
//
//	var stack = devstacktest.New(devstacktest.Postgres, devstacktest.Temporal)
//
//	func TestMain(m *testing.M) { os.Exit(stack.Main(m).Run()) }
//
// What is missing fails the tests; nothing is skipped.
package devstacktest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/earmark-dev/earmark/internal/devstack"
)

// Service is something that tests can run on.
type Service int

// The services.
const (
	Postgres Service = iota
	Temporal
)

// searchAttributes are spelled out, because what the product registers is itself under test.
var searchAttributes = map[string]string{
	"EarmarkTenant":    "Keyword",
	"EarmarkScope":     "KeywordList",
	"EarmarkExpiresAt": "Datetime",
	"EarmarkState":     "Keyword",
}

// Stack is what one test binary runs on.
type Stack struct {
	services []Service
	dir      string
	postgres *devstack.Postgres
	temporal *devstack.Temporal
}

// New names the services; Main starts them.
func New(services ...Service) *Stack { return &Stack{services: services} }

// PostgresURL is the connection string of an empty database, whose user may create others.
func (s *Stack) PostgresURL() string { return s.postgres.URL() }

// TemporalAddress is the host and port of a Temporal server with the search attributes registered.
func (s *Stack) TemporalAddress() string { return s.temporal.Address() }

// Main wraps m, a *testing.M, so that its Run starts the services before the tests and stops them after.
// It fits goleak.VerifyTestMain, which then also sees what the services leave behind.
func (s *Stack) Main(m interface{ Run() int }) *Main { return &Main{stack: s, tests: m} }

// Main is the tests with the services around them.
type Main struct {
	stack *Stack
	tests interface{ Run() int }
}

// Run answers the exit code: that of the tests, or 1 if a service did not start or stop.
func (m *Main) Run() (code int) {
	ctx := context.Background()
	defer func() {
		if err := m.stack.stop(ctx); err != nil {
			code = fail("stop", err)
		}
	}()
	if err := m.stack.start(ctx); err != nil {
		return fail("start", err)
	}
	return m.tests.Run()
}

func fail(what string, err error) int {
	fmt.Fprintf(os.Stderr, "cannot %s what the tests need: %v\n", what, err)
	return 1
}

func (s *Stack) start(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "earmark-test-"); err != nil {
		return err
	}
	// As root, Postgres runs as another user, who has to get in.
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	if slices.Contains(s.services, Postgres) {
		s.postgres, err = devstack.StartPostgres(ctx, devstack.PostgresOptions{
			Dir: filepath.Join(s.dir, "postgres"), Fast: true, Superuser: true,
		})
		if err != nil {
			return err
		}
	}
	if slices.Contains(s.services, Temporal) {
		s.temporal, err = devstack.StartTemporal(ctx, devstack.TemporalOptions{
			Dir: filepath.Join(s.dir, "temporal"), Headless: true, InMemory: true, SearchAttributes: searchAttributes,
		})
	}
	return err
}

func (s *Stack) stop(ctx context.Context) error {
	var errs []error
	if s.temporal != nil {
		errs = append(errs, s.temporal.Stop(ctx))
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Stop(ctx))
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
