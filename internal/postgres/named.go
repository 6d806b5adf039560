package postgres

import (
	"context"
	"regexp"
	"sync"

	"github.com/jackc/pgx/v5"
)

// namedArgs are the arguments of a statement by name, such as @id. pgx.NamedArgs parses the
// statement on each call; namedArgs parses it once.
type namedArgs map[string]any

// positional is a statement with $1 in place of each name, and the names in order.
type positional struct {
	sql   string
	names []any
}

var (
	positionals sync.Map // *positional by the statement with names
	argName     = regexp.MustCompile(`@([a-z_]+)`)
)

// RewriteQuery implements pgx.QueryRewriter.
func (a namedArgs) RewriteQuery(ctx context.Context, conn *pgx.Conn, sql string, args []any) (newSQL string, newArgs []any, err error) {
	known, found := positionals.Load(sql)
	if !found {
		names := pgx.NamedArgs{}
		for _, match := range argName.FindAllStringSubmatch(sql, -1) {
			names[match[1]] = match[1]
		}
		p := &positional{}
		if p.sql, p.names, err = names.RewriteQuery(ctx, conn, sql, args); err != nil {
			return "", nil, err
		}
		known, _ = positionals.LoadOrStore(sql, p)
	}
	p := known.(*positional) // the map holds nothing else
	newArgs = make([]any, len(p.names))
	for i, name := range p.names {
		newArgs[i] = a[name.(string)]
	}
	return p.sql, newArgs, nil
}
