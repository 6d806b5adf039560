package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark/internal/devstack"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/workflowstore"
)

// devPostgresPort is the default of --postgres-port.
const devPostgresPort = 5433

// stopTimeout bounds how long one child process may take to stop.
const stopTimeout = 20 * time.Second

// devSettings are the settings of the development stack.
type devSettings struct {
	settings
	dataDir       string
	postgresPort  int
	temporalPort  int
	uiPort        int
	printURL      bool
	resetTemporal bool
}

func newDev() *cobra.Command {
	d := &devSettings{}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything on this machine: Postgres, Temporal with its UI, API and worker",
		Long: `Run everything on this machine, on loopback addresses: Postgres, Temporal with
its UI, migrations, the HTTP API and a worker. The data survives a restart.
Ctrl-C stops everything.

Postgres asks for a password, which is in the file postgres/pgpass of the data
directory; the connection string that --print-database-url prints names that file.
Temporal keeps the history of a closed workflow for 24 hours, about 28 kB each, and
then uses the space again. Its database never shrinks; --reset-temporal removes it.`,
		Example: `  earmark dev
  earmark dev --addr 127.0.0.1:9080 --data-dir ./data
  psql "$(earmark dev --print-database-url)"
  earmark dev --database-url postgres://me@127.0.0.1:5432/earmark   # with a Postgres that runs already`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := d.load(cmd); err != nil {
				return err
			}
			if d.printURL {
				return d.printDatabaseURL(cmd.OutOrStdout())
			}
			return d.run(cmd.Context(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	d.databaseFlags(flags)
	d.temporalFlags(flags)
	d.apiFlags(flags)
	d.workerFlags(flags)
	d.logFlags(flags)
	d.WithoutKeys = true                                                                   // it listens on loopback, for one person
	flags.Lookup("allow-private-webhooks").DefValue, d.AllowPrivateWebhooks = "true", true // their receiver is on this machine
	flags.Lookup("log-format").DefValue, d.LogFormat = "text", "text"
	flags.StringVar(&d.dataDir, "data-dir", "", "where Postgres and Temporal keep their data (default: a directory of this user)")
	flags.IntVar(&d.postgresPort, "postgres-port", devPostgresPort, "port of Postgres")
	flags.IntVar(&d.temporalPort, "temporal-port", 7233, "port of Temporal")
	flags.IntVar(&d.uiPort, "ui-port", 8233, "port of Temporal UI")
	flags.BoolVar(&d.printURL, "print-database-url", false, "print the connection string of the Postgres in --data-dir on --postgres-port, and start nothing")
	flags.BoolVar(&d.resetTemporal, "reset-temporal", false, "remove Temporal's database first: the disk gets the space back, and open reservations get new workflows within minutes")
	return cmd
}

// run starts what is not running yet, serves until ctx is done, and stops in reverse order.
func (d *devSettings) run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := d.findDataDir(); err != nil {
		return err
	}
	lock, err := devstack.LockDir(d.dataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if d.resetTemporal {
		if err := devstack.RemoveTemporal(d.temporalDir()); err != nil {
			return err
		}
	}

	stop, err := d.startChildren(ctx, out, cancel)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	if err := d.migrate(ctx, out); err != nil {
		return err
	}
	err = serve(ctx, &d.settings, d.logger(), func(address string) { d.greet(out, address) })
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return errors.Join(cause, err) // a child died
	}
	return err
}

// findDataDir makes dataDir absolute; the default is a directory of the user.
func (d *devSettings) findDataDir() (err error) {
	if d.dataDir == "" {
		if d.dataDir, err = devstack.DefaultDataDir(); err != nil {
			return err
		}
	}
	if d.dataDir, err = filepath.Abs(d.dataDir); err != nil {
		return fmt.Errorf("find --data-dir: %w", err)
	}
	return nil
}

func (d *devSettings) postgresDir() string { return filepath.Join(d.dataDir, "postgres") }
func (d *devSettings) temporalDir() string { return filepath.Join(d.dataDir, "temporal") }

func (d *devSettings) printDatabaseURL(out io.Writer) error {
	if err := d.findDataDir(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, devstack.PostgresURL(d.postgresDir(), d.postgresPort))
	return err
}

// temporalSize describes the size of Temporal's database, and what to do if it is large.
func (d *devSettings) temporalSize() string {
	const large = 1 << 30 // bytes
	bytes := devstack.TemporalBytes(d.temporalDir())
	text := fmt.Sprintf("its database has %d MB", bytes>>20)
	if bytes >= large {
		text += "; restart with --reset-temporal to free the space"
	}
	return text
}

// startChildren starts Postgres and Temporal at the same time, unless the settings name a
// running one. stop is never nil and stops what was started.
func (d *devSettings) startChildren(ctx context.Context, out io.Writer, died context.CancelCauseFunc) (stop func() error, err error) {
	var database *devstack.Postgres
	var temporal *devstack.Temporal
	group, groupCtx := errgroup.WithContext(ctx)
	if d.DatabaseURL == "" {
		group.Go(func() (err error) {
			database, err = devstack.StartPostgres(groupCtx, devstack.PostgresOptions{Dir: d.postgresDir(), Port: d.postgresPort, Log: out})
			return err
		})
	}
	if d.temporalAddress == "" {
		group.Go(func() (err error) {
			attributes := make(map[string]string)
			for name, kind := range workflowstore.SearchAttributes() {
				attributes[name] = kind.String()
			}
			temporal, err = devstack.StartTemporal(groupCtx, devstack.TemporalOptions{
				Dir: d.temporalDir(), Port: d.temporalPort, UIPort: d.uiPort, Log: out, SearchAttributes: attributes,
			})
			return err
		})
	}
	fmt.Fprintf(out, "starting Postgres and Temporal in %s …\n", d.dataDir)
	err = group.Wait()
	stop = func() error {
		var errs []error
		for _, child := range []interface{ Stop(context.Context) error }{orNil(temporal), orNil(database)} {
			if child != nil {
				stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
				errs = append(errs, child.Stop(stopCtx))
				cancel()
			}
		}
		return errors.Join(errs...)
	}
	if err != nil {
		return stop, err
	}
	if database != nil {
		d.DatabaseURL = database.URL()
		go watch(ctx, "Postgres", database, died)
	}
	if temporal != nil {
		d.temporalAddress, d.temporalNamespace = temporal.Address(), client.DefaultNamespace
		if d.UIURL == "" {
			d.UIURL = temporal.UIURL()
		}
		d.temporalDetail = d.temporalSize
		go watch(ctx, "Temporal", temporal, died)
	}
	return stop, nil
}

// orNil keeps a nil pointer from hiding in an interface.
func orNil[T any, P interface {
	*T
	Stop(context.Context) error
}](child P) interface{ Stop(context.Context) error } {
	if child == nil {
		return nil
	}
	return child
}

// watch ends the stack if a child process ends by itself.
func watch(ctx context.Context, name string, child interface {
	Done() <-chan struct{}
	Err() error
}, died context.CancelCauseFunc,
) {
	select {
	case <-ctx.Done():
	case <-child.Done():
		if ctx.Err() == nil {
			died(fmt.Errorf("%s ended, and so everything stops: %w", name, child.Err()))
		}
	}
}

func (d *devSettings) migrate(ctx context.Context, out io.Writer) error {
	pool, err := openPool(ctx, d.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := postgres.Migrate(ctx, pool); err != nil {
		return err
	}
	if d.WithoutSearchAttributes {
		return nil
	}
	return withTemporal(ctx, &d.settings, func(ctx context.Context, c client.Client, namespace string) error {
		return registerAttributes(ctx, out, c, namespace)
	})
}

func (d *devSettings) greet(out io.Writer, address string) {
	fmt.Fprintf(out, `
Earmark is running.

  status page  http://%[1]s/
  API          http://%[1]s
  reference    http://%[1]s/docs
  Temporal UI  %[2]s
  Postgres     %[3]s
  data         %[4]s

Create a budget and hold some of it:

  curl -s http://%[1]s/v1/budgets -H 'Content-Type: application/json' -d '{"scope":"acme","unit":"tokens","limit":1000}'
  curl -s http://%[1]s/v1/reservations -H 'Content-Type: application/json' -d '{"scopes":["acme"],"amounts":{"tokens":600}}'

Ctrl-C stops everything; the data stays.
`, address, orElse(d.UIURL, "(of the Temporal that runs already)"), d.DatabaseURL, d.dataDir)
	if d.temporalDetail != nil {
		fmt.Fprintf(out, "Temporal: %s.\n", d.temporalDetail())
	}
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
