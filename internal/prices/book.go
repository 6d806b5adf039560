package prices

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/pricing"
)

const (
	// fresh is how long the newest known version passes for the current one; after that a
	// call waits for a new answer. So a version holds for every call that begins later.
	fresh = 3 * time.Second
	// readTimeout bounds one read of new versions. The first one reads them all.
	readTimeout = 10 * time.Second
	// maxTables and maxPrices bound what is kept ready: the tables of the installation at
	// different versions, and the prices of tenants at them.
	maxTables = 8
	maxPrices = 1_000
)

// Source has the versions.
type Source interface {
	// PriceVersions returns the versions after a number, in order.
	PriceVersions(ctx context.Context, after int64) ([]Version, error)
}

// Book finds the prices of a tenant. It keeps all versions in memory: a version never
// changes, so only the answer to which one is the newest ages.
type Book struct {
	source Source
	now    func() time.Time
	flight singleflight.Group

	mu       sync.Mutex
	versions history
	asked    time.Time                // when the source was last asked
	added    time.Time                // of a version, by this process: earlier answers may lack it
	tables   map[int64]*pricing.Table // of the installation, by the last version that has entries
	prices   map[pricesKey]*Prices
}

type pricesKey struct {
	tenant  string
	version int64
}

// NewBook returns a book of the versions that source has.
func NewBook(source Source) *Book {
	return &Book{source: source, now: time.Now, tables: map[int64]*pricing.Table{}, prices: map[pricesKey]*Prices{}}
}

// Current returns the prices of a tenant at the newest version. A version that another
// process added takes effect within 3 seconds. The error is CodeUnavailable.
func (b *Book) Current(ctx context.Context, tenant string) (*Prices, error) {
	if !b.isFresh() {
		if err := b.refresh(ctx); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at(tenant, int64(len(b.versions)))
}

// Version returns the prices of a tenant at a version. The error is CodeNotFound if there is
// no such version, and CodeUnavailable.
func (b *Book) Version(ctx context.Context, tenant string, version int64) (*Prices, error) {
	if version < 0 {
		return nil, noSuchVersion(version)
	}
	if !b.has(version) {
		if err := b.refresh(ctx); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if version > int64(len(b.versions)) {
		return nil, noSuchVersion(version)
	}
	return b.at(tenant, version)
}

// Added makes a version that this process has added take effect at once.
func (b *Book) Added() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.added = b.now()
	b.flight.Forget("")
}

// Versions returns all versions, the first one first, as of at most 3 seconds ago.
func (b *Book) Versions(ctx context.Context) ([]Version, error) {
	if !b.isFresh() {
		if err := b.refresh(ctx); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.versions[:len(b.versions):len(b.versions)], nil
}

func (b *Book) isFresh() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.asked.IsZero() && !b.asked.Before(b.added) && b.now().Sub(b.asked) < fresh
}

func (b *Book) has(version int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return version <= int64(len(b.versions))
}

// refresh reads the versions that were added. One read serves all callers that wait.
func (b *Book) refresh(ctx context.Context) error {
	results := b.flight.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
		defer cancel()
		return nil, b.read(ctx)
	})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case result := <-results:
		return result.Err
	}
}

func (b *Book) read(ctx context.Context) error {
	b.mu.Lock()
	after, asked := int64(len(b.versions)), b.now()
	b.mu.Unlock()
	added, err := b.source.PriceVersions(ctx, after)
	if err != nil {
		return earmark.Errorf(earmark.CodeUnavailable, "the prices could not be read: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, v := range added {
		switch known := int64(len(b.versions)); {
		case v.ID <= known: // another read was faster
			continue
		case v.ID > known+1:
			return earmark.Errorf(earmark.CodeInternal, "price version %d comes after %d", v.ID, known)
		}
		b.versions = append(b.versions, v)
	}
	if asked.After(b.asked) {
		b.asked = asked
	}
	return nil
}

// at returns the prices at a known version. The caller holds mu.
func (b *Book) at(tenant string, version int64) (*Prices, error) {
	key := pricesKey{tenant, version}
	if p := b.prices[key]; p != nil {
		return p, nil
	}
	shared, err := b.shared(version)
	if err != nil {
		return nil, err
	}
	p, err := newPrices(b.versions, tenant, version, shared)
	if err != nil {
		return nil, earmark.Errorf(earmark.CodeInternal, "the prices of version %d: %w", version, err)
	}
	if len(b.prices) >= maxPrices {
		clear(b.prices)
	}
	b.prices[key] = p
	return p, nil
}

// shared returns the table of the installation at a version.
func (b *Book) shared(version int64) (*pricing.Table, error) {
	own := b.versions.owned(Installation, version)
	for len(own) > 0 && len(own[len(own)-1].Entries) == 0 {
		own = own[:len(own)-1]
	}
	last := int64(0)
	if len(own) > 0 {
		last = own[len(own)-1].ID
	}
	if t := b.tables[last]; t != nil {
		return t, nil
	}
	t, err := pricing.NewTable(entriesOf(own)...)
	if err != nil {
		return nil, earmark.Errorf(earmark.CodeInternal, "the prices of version %d: %w", version, err)
	}
	if len(b.tables) >= maxTables {
		clear(b.tables)
	}
	b.tables[last] = t
	return t, nil
}

func noSuchVersion(version int64) error {
	return earmark.Errorf(earmark.CodeNotFound, "there is no price version %d", version)
}
