package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/earmark-dev/earmark/internal/ctxtime"
	"github.com/earmark-dev/earmark/internal/devstack"
)

const (
	// startLimit bounds how long a service, a namespace or a process may take to be ready.
	startLimit = 60 * time.Second
	// stopLimit bounds how long one of them may take to end.
	stopLimit    = 30 * time.Second
	pollInterval = 10 * time.Millisecond
	// retention of closed workflows: the shortest that Temporal takes.
	retention = 24 * time.Hour
)

// services are the Postgres and the Temporal that everything is measured on.
type services struct {
	options  Options
	dir      string
	id       string             // of the run, part of the names of databases and namespaces
	postgres *devstack.Postgres // nil: somebody else's
	temporal *devstack.Temporal
	// undo drops what was made on somebody else's services.
	mu   sync.Mutex
	undo []func(context.Context) error
}

// startServices starts what the options do not name, in a directory of the run's own.
func startServices(ctx context.Context, options Options) (s *services, err error) {
	s = &services{options: options, id: strings.ToLower(rand.Text()[:8])}
	if s.dir, err = os.MkdirTemp(options.Dir, "earmark-bench-"); err != nil {
		return nil, fmt.Errorf("make a directory for the data: %w", err)
	}
	// Postgres runs as another user where this one is root.
	if err := os.Chmod(s.dir, 0o755); err != nil { //nolint:gosec // see above
		return nil, errors.Join(err, s.stop(ctx))
	}
	group, groupCtx := errgroup.WithContext(ctx)
	if options.DatabaseURL == "" {
		group.Go(func() (err error) {
			s.postgres, err = devstack.StartPostgres(groupCtx, devstack.PostgresOptions{Dir: filepath.Join(s.dir, "postgres"), Superuser: true})
			return err
		})
	}
	if options.TemporalAddress == "" {
		group.Go(func() (err error) {
			s.temporal, err = devstack.StartTemporal(groupCtx, devstack.TemporalOptions{Dir: filepath.Join(s.dir, "temporal"), Headless: true})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, s.stop(ctx))
	}
	if s.postgres != nil {
		s.options.DatabaseURL = s.postgres.URL()
	}
	if s.temporal != nil {
		s.options.TemporalAddress = s.temporal.Address()
	}
	return s, nil
}

// stop ends and removes what was made, also when ctx has ended.
func (s *services) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	var errs []error
	for i := len(s.undo) - 1; i >= 0; i-- {
		errs = append(errs, s.undo[i](ctx))
	}
	if s.temporal != nil {
		errs = append(errs, s.temporal.Stop(ctx))
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Stop(ctx))
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// later remembers what has to be undone in the end.
func (s *services) later(undo func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undo = append(s.undo, undo)
}

// died returns why a service of the run itself has ended; nil while both run.
func (s *services) died() error {
	var errs []error
	if s.temporal != nil {
		errs = append(errs, s.temporal.Err())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Err())
	}
	return errors.Join(errs...)
}

// newDatabase makes an empty database and returns how to reach it.
func (s *services) newDatabase(ctx context.Context, name string) (databaseURL string, err error) {
	name = "earmark_bench_" + s.id + "_" + name
	if err := s.execute(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", fmt.Errorf("create the database %s: %w", name, err)
	}
	if s.postgres == nil {
		s.later(func(ctx context.Context) error {
			return s.execute(ctx, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
		})
	}
	u, err := url.Parse(s.options.DatabaseURL)
	if err != nil {
		return "", fmt.Errorf("the database URL does not parse: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}

func (s *services) execute(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.options.DatabaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

// newNamespace registers a namespace and waits until every part of Temporal knows it.
func (s *services) newNamespace(ctx context.Context, name string) (namespace string, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	namespace = "earmark-bench-" + s.id + "-" + strings.ReplaceAll(name, "_", "-")
	c, err := s.options.Dial(s.options.TemporalAddress, namespace)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: namespace, WorkflowExecutionRetentionPeriod: durationpb.New(retention),
	}); err != nil {
		return "", fmt.Errorf("register the namespace %s: %w", namespace, err)
	}
	if s.temporal == nil {
		s.later(func(ctx context.Context) error { return s.dropNamespace(ctx, namespace) })
	}
	return namespace, await(ctx, "namespace "+namespace, func() error {
		_, err := c.DescribeWorkflowExecution(ctx, "none", "")
		var unknown *serviceerror.NamespaceNotFound
		var notFound *serviceerror.NotFound
		if errors.As(err, &notFound) && !errors.As(err, &unknown) {
			return nil
		}
		return err
	})
}

func (s *services) dropNamespace(ctx context.Context, namespace string) error {
	c, err := s.options.Dial(s.options.TemporalAddress, client.DefaultNamespace)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.OperatorService().DeleteNamespace(ctx, &operatorservice.DeleteNamespaceRequest{Namespace: namespace})
	return err
}

// await calls ready until it has no error, for as long as ctx and startLimit allow.
func await(ctx context.Context, what string, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		if !ctxtime.Sleep(ctx, pollInterval) {
			return fmt.Errorf("%s was not ready (%w): %w", what, context.Cause(ctx), err)
		}
	}
}
