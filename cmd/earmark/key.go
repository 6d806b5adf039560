package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// defaultOverlap is how long a rotated key works on, so that its holders can change over.
const defaultOverlap = 24 * time.Hour

func newKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "key",
		Short:   "Create, list, rotate and revoke API keys, on the database",
		Example: "  KEY=$(earmark key create --role reserve --name backend)",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyCreate(), newKeyList(), newKeyRotate(), newKeyRevoke())
	return cmd
}

func newKeyCreate() *cobra.Command {
	var d databaseCommand
	var tenant string
	var request earmark.KeyRequest
	var expires lifetimeFlag
	role := choiceFlag[earmark.Role]{"", "ROLE", earmark.Roles}
	cmd := &cobra.Command{
		Use:   "create --role ROLE",
		Short: "Create a key and print it, once",
		Long: `Create a key for a tenant and print it on standard output; everything else goes
to standard error. The key is shown this once: the database has a hash alone.

Each role includes those before it:
  read     read budgets, reservations and entries
  settle   commit, release and extend: for workers
  reserve  reserve, decide and charge: for backends
  operate  settle for callers, correct, list what is stuck, drain: for operators
  admin    change budgets and keys, read the audit log`,
		Example: `  KEY=$(earmark key create --role reserve --name backend)
  earmark key create --tenant acme --role settle --scope acme/ml --expires 90d
  earmark key create --tenant acme --role reserve --rate 50/s`,
		Args: noArguments,
		RunE: d.run(func(ctx context.Context, cmd *cobra.Command, _ []string) (databaseCall, error) {
			if role.value == "" {
				return nil, usageError{fmt.Errorf("--role is missing: use one of %s", strings.Join(role.words(), ", "))}
			}
			now := time.Now()
			request.Role = role.value
			if cmd.Flags().Changed("expires") {
				request.ExpiresAt = new(now.Add(time.Duration(expires)))
			}
			if err := cmp.Or(earmark.ValidateTenant(tenant), request.Validate(now)); err != nil {
				return nil, err
			}
			return func(l *postgres.Ledger, by earmark.Actor, reason string) error {
				issued, err := l.CreateKey(ctx, tenant, request, by, reason)
				if err != nil {
					return err
				}
				return d.printIssued(cmd, "Created", issued)
			}, nil
		}),
	}
	cmd.Flags().StringVar(&tenant, "tenant", earmark.DefaultTenant, "the `TENANT` that owns the key")
	role.define(cmd, "role", "what its holder may do")
	cmd.Flags().Var((*scopesFlag)(&request.Scopes), "scope", "bind the key to this scope and those below it; repeat it for more (default: all)")
	cmd.Flags().Var(&expires, "expires", "how long it works, such as 90d or 12h (default: until it is revoked)")
	cmd.Flags().Var((*rateFlag)(&request.Rate), "rate", "bound its calls at each server process, such as 50/s or 3000/m, except commits, releases and extensions (default: no bound)")
	cmd.Flags().StringVar(&request.Name, "name", "", "a `NAME` for people, such as the service that holds it")
	completeWords(cmd, "tenant", nil)
	d.flags(cmd)
	return cmd
}

func newKeyList() *cobra.Command {
	var d databaseCommand
	var tenant string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List keys, newest first, also those that are expired or revoked",
		Example: "  earmark key list --tenant acme",
		Args:    noArguments,
		RunE: d.run(func(ctx context.Context, cmd *cobra.Command, _ []string) (databaseCall, error) {
			if tenant != "" {
				if err := earmark.ValidateTenant(tenant); err != nil {
					return nil, err
				}
			}
			return func(l *postgres.Ledger, _ earmark.Actor, _ string) error {
				keys, err := keysOf(ctx, l, tenant)
				if err != nil {
					return err
				}
				return d.print(cmd, earmark.Page[earmark.Key]{Data: keys}, keyTable(keys))
			}, nil
		}),
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only those of this `TENANT`")
	completeWords(cmd, "tenant", nil)
	d.readFlags(cmd)
	return cmd
}

// keysOf are the keys of a tenant, or of each tenant.
func keysOf(ctx context.Context, l *postgres.Ledger, tenant string) ([]earmark.Key, error) {
	tenants, err := l.Tenants(ctx)
	if err != nil {
		return nil, err
	}
	keys := []earmark.Key{}
	for _, t := range tenants {
		if tenant != "" && t.ID != tenant {
			continue
		}
		filter := earmark.KeyFilter{Limit: earmark.MaxPageSize}
		for {
			page, err := l.Keys(ctx, t.ID, filter)
			if err != nil {
				return nil, err
			}
			keys = append(keys, page.Data...)
			if filter.Cursor = page.NextCursor; filter.Cursor == "" {
				break
			}
		}
	}
	if tenant != "" && !slices.ContainsFunc(tenants, func(t earmark.Tenant) bool { return t.ID == tenant }) {
		return nil, earmark.Errorf(earmark.CodeNotFound, "there is no tenant %q; `earmark tenant list` shows them", tenant)
	}
	return keys, nil
}

func newKeyRotate() *cobra.Command {
	var d databaseCommand
	overlap := lifetimeFlag(defaultOverlap)
	cmd := &cobra.Command{
		Use:   "rotate ID",
		Short: "Replace a key by a new one, which is printed once",
		Long: `Create a key with the tenant, name, role, scopes, rate and lifetime of another,
and print it on standard output. The old key works for --overlap more, so that
its holders can change over; with --overlap 0 it ends at once.`,
		Example: `  KEY=$(earmark key rotate k3jd8fh2qz07)
  earmark key rotate k3jd8fh2qz07 --overlap 0 --reason "it was in a log"`,
		Args: arguments("ID"),
		RunE: d.run(func(ctx context.Context, cmd *cobra.Command, args []string) (databaseCall, error) {
			id, err := keyID(args[0])
			if err != nil {
				return nil, err
			}
			if err := earmark.ValidateOverlap(time.Duration(overlap)); err != nil {
				return nil, err
			}
			return func(l *postgres.Ledger, by earmark.Actor, reason string) error {
				old, err := l.Credential(ctx, id)
				if err != nil {
					return err
				}
				issued, err := l.RotateKey(ctx, old.Key.Tenant, id, time.Duration(overlap), by, reason)
				if err != nil {
					return err
				}
				if err := d.printIssued(cmd, "Created", issued); err != nil {
					return err
				}
				ending, err := l.Credential(ctx, id)
				if err != nil {
					return err
				}
				p := d.words(cmd)
				p.line("It replaces %s, which %s.", id, endWords(p, ending.Key))
				return p.flush()
			}, nil
		}),
	}
	cmd.Flags().Var(&overlap, "overlap", "how long the old key works on, such as 24h or 7d")
	d.flags(cmd)
	return cmd
}

func newKeyRevoke() *cobra.Command {
	var d databaseCommand
	cmd := &cobra.Command{
		Use:   "revoke ID --reason WHY",
		Short: "End a key for good, within 5 seconds everywhere",
		Long: `End a key for good. Servers refuse it within 5 seconds. To revoke a key twice is
to revoke it once.`,
		Example:               `  earmark key revoke k3jd8fh2qz07 --reason "it was in a log"`,
		Args:                  arguments("ID"),
		DisableFlagsInUseLine: true,
		RunE: d.run(func(ctx context.Context, cmd *cobra.Command, args []string) (databaseCall, error) {
			id, err := keyID(args[0])
			if err != nil {
				return nil, err
			}
			if err := d.requireReason(); err != nil {
				return nil, err
			}
			return func(l *postgres.Ledger, by earmark.Actor, reason string) error {
				key, err := l.Credential(ctx, id)
				if err != nil {
					return err
				}
				revoked, err := l.RevokeKey(ctx, key.Key.Tenant, id, by, reason)
				if err != nil {
					return err
				}
				return d.print(cmd, revoked, func(p *sheet) {
					p.line("%s", p.paint("Revoked", green))
					keyFields(p, *revoked)
				})
			}, nil
		}),
	}
	d.flags(cmd)
	return cmd
}

// keyID refuses what is no key's id, without repeating it: it may be the key itself.
func keyID(text string) (string, error) {
	if earmark.IsKeyID(text) {
		return text, nil
	}
	if strings.HasPrefix(text, "emk_") {
		return "", usageError{errors.New("ID: give the key's id, the 12 characters after emk_, and not the key: other accounts can read a command line")}
	}
	return "", usageError{errors.New("ID: that is not the id of a key: 12 of a-z and 0-9; `earmark key list` shows them")}
}

// printIssued prints a new key: the secret alone on standard output, and the rest beside it.
func (d *databaseCommand) printIssued(cmd *cobra.Command, done string, issued *earmark.IssuedKey) error {
	if d.asJSON {
		return printJSON(cmd.OutOrStdout(), issued)
	}
	fmt.Fprintln(cmd.OutOrStdout(), issued.Secret)
	p := d.words(cmd)
	p.line("%s. The key is shown this once; keep it now.", p.paint(done, green))
	keyFields(p, issued.Key)
	return p.flush()
}

func keyFields(p *sheet, k earmark.Key) {
	p.fields(field{"ID", k.ID, bold}, field{"Tenant", k.Tenant, plain}, field{"Name", k.Name, plain}, field{"Role", string(k.Role), plain},
		field{"Scopes", orElse(strings.Join(displayScopes(k.Scopes), "\n"), "all"), plain},
		field{"Rate", orElse(k.Rate.String(), "no bound"), plain},
		field{"State", endWords(p, k), plain})
}

// endWords says whether a key works and until when.
func endWords(p *sheet, k earmark.Key) string {
	switch {
	case k.RevokedAt != nil:
		return "was revoked " + p.moment(*k.RevokedAt, time.UTC)
	case k.ExpiresAt == nil:
		return "works until it is revoked"
	case k.ExpiresAt.After(p.now):
		return "works until " + p.moment(*k.ExpiresAt, time.UTC)
	}
	return "ended " + p.moment(*k.ExpiresAt, time.UTC)
}

func keyTable(keys []earmark.Key) view {
	columns := []column{
		{title: "ID"},
		{title: "TENANT", shrink: 3, least: 8},
		{title: "NAME", shrink: 1, least: 8},
		{title: "ROLE"},
		{title: "SCOPES", shrink: 2, least: 10, inside: true},
		{title: "RATE", drop: 5},
		{title: "CREATED", drop: 2},
		{title: "LAST USED", drop: 3},
		{title: "STATE"},
		{title: "ENDS", drop: 4},
		{title: "REPLACED BY", drop: 1},
	}
	return func(p *sheet) {
		if len(keys) == 0 {
			p.line("No keys. `earmark key create --role ROLE` makes one.")
			return
		}
		rows := make([][]cell, 0, len(keys))
		for _, k := range keys {
			state, style, ends := "active", green, ""
			switch {
			case k.RevokedAt != nil:
				state, style, ends = "revoked", red, p.when(*k.RevokedAt)
			case k.ExpiresAt != nil:
				ends = p.when(*k.ExpiresAt)
				if !k.ExpiresAt.After(p.now) {
					state, style = "expired", dim
				}
			}
			used := ""
			if k.LastUsedAt != nil {
				used = p.when(*k.LastUsedAt)
			}
			rows = append(rows, []cell{
				{k.ID, plain}, {k.Tenant, plain}, {k.Name, plain}, {string(k.Role), plain}, {orElse(strings.Join(displayScopes(k.Scopes), ","), "all"), plain},
				{k.Rate.String(), plain}, {p.when(k.CreatedAt), dim}, {used, dim}, {state, style}, {ends, dim}, {k.ReplacedBy, dim},
			})
		}
		p.table(columns, rows)
	}
}

// rateFlag is a rate such as 50/s.
type rateFlag earmark.Rate

func (f *rateFlag) String() string { return earmark.Rate(*f).String() }
func (f *rateFlag) Type() string   { return "RATE" }

func (f *rateFlag) Set(text string) error {
	rate, err := earmark.ParseRate(text)
	var e *earmark.Error
	if errors.As(err, &e) {
		return errors.New(e.Message)
	}
	*f = rateFlag(rate)
	return nil
}

// lifetimeFlag is a time in days or shorter units: 90d, 12h, 30m.
type lifetimeFlag time.Duration

func (f *lifetimeFlag) Set(text string) error {
	lifetime, err := time.ParseDuration(text)
	if days, found := strings.CutSuffix(text, "d"); found {
		const mostDays = 100_000 // far beyond what is allowed, and within time.Duration
		var n int64
		if n, err = strconv.ParseInt(days, 10, 64); err == nil && n > mostDays {
			err = strconv.ErrRange
		}
		lifetime = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || lifetime < 0 {
		return fmt.Errorf("%q is not a time; write 90d, 12h or 30m", clipped(text))
	}
	*f = lifetimeFlag(lifetime)
	return nil
}
func (f *lifetimeFlag) Type() string { return "DURATION" }
func (f *lifetimeFlag) String() string {
	if *f == 0 {
		return ""
	}
	return span(time.Duration(*f))
}

// scopesFlag collects --scope SCOPE.
type scopesFlag []string

func (f *scopesFlag) String() string { return strings.Join(*f, ",") }
func (f *scopesFlag) Type() string   { return "SCOPE" }

func (f *scopesFlag) Set(text string) error {
	scope, err := earmark.ParseScope("", text)
	if err != nil {
		return err
	}
	if slices.Contains(*f, scope) {
		return fmt.Errorf("%s is given twice", scope)
	}
	*f = append(*f, scope)
	return nil
}
