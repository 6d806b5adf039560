package postgres_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ledgertest"
)

// The years whose changes of clocks are looked at.
var (
	zonesFrom = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	zonesTo   = time.Date(2041, 1, 1, 0, 0, 0, 0, time.UTC)
)

// sameDataShare is the share of zones, in percent, for which two implementations must
// have the same time-zone data. What they have differently cannot be compared.
const sameDataShare = 95

// clockChange is an instant at which the offset from UTC becomes another one.
type clockChange struct {
	AtSeconds     int64 // since 1970
	OffsetSeconds int   // ahead of UTC
}

func (c clockChange) at() time.Time { return time.Unix(c.AtSeconds, 0).UTC() }

// clockChanges lists what Go knows of a zone, in order.
func clockChanges(t *testing.T, zone string) []clockChange {
	t.Helper()
	location, err := time.LoadLocation(zone)
	require.NoError(t, err)
	var changes []clockChange
	at := zonesFrom.In(location)
	_, offset := at.Zone()
	for {
		_, until := at.ZoneBounds()
		if !until.IsZero() && !until.After(at) {
			until = at.Add(24 * time.Hour) // ZoneBounds says so on the last day of a leap year, see internal/ledgertest
		}
		if at = until; at.IsZero() || !at.Before(zonesTo) {
			return changes
		}
		if _, next := at.Zone(); next != offset {
			changes = append(changes, clockChange{at.Unix(), next})
			offset = next
		}
	}
}

// samples picks instants near each change of clocks, and some at any time.
func samples(changes []clockChange, random *rand.Rand) []time.Time {
	var instants []time.Time
	for _, change := range changes {
		for _, off := range []time.Duration{
			-25 * time.Hour, -time.Hour, -time.Second, -time.Microsecond, 0, 29 * time.Minute, time.Hour - time.Second, 25 * time.Hour,
		} {
			instants = append(instants, change.at().Add(off))
		}
		instants = append(instants, change.at().Add(time.Duration(random.Int64N(int64(72*time.Hour)))-36*time.Hour).Truncate(time.Second))
	}
	for range 20 {
		instants = append(instants, zonesFrom.Add(time.Duration(random.Int64N(int64(zonesTo.Sub(zonesFrom))))).Truncate(time.Second))
	}
	return instants
}

// TestWindowsOfEveryZone looks at every zone that a budget may have, near each change
// of its clocks. It checks that every instant is in one window, which starts where the
// one before ended, and that Postgres, Go and Node have the same bounds, each with an
// algorithm and date functions of its own.
func TestWindowsOfEveryZone(t *testing.T) {
	pool := setup(t).pool
	seed := rand.Uint64()
	t.Logf("seed %d; %s", seed, versions(t, pool))
	random := rand.New(rand.NewPCG(seed, 0))

	all := acceptedZones(t, pool)
	require.Greater(t, len(all), 400)
	changes := map[string][]clockChange{}
	for _, zone := range all {
		changes[zone] = clockChanges(t, zone)
	}
	requireSameClocks(t, pool, changes)

	// Many names share one history of clocks; windows depend on that alone.
	instants := map[string][]time.Time{}
	seen := map[string]bool{}
	for _, zone := range all {
		if history := fmt.Sprint(offsetOf(t, zone), changes[zone]); !seen[history] {
			seen[history] = true
			instants[zone] = samples(changes[zone], random)
		}
	}
	t.Logf("%d zones with %d histories", len(all), len(instants))

	var node errgroup.Group
	var answer nodeAnswer
	node.Go(func() (err error) {
		answer, err = askNode(instants)
		return err
	})
	for _, zone := range slices.Sorted(maps.Keys(instants)) {
		requireModelsBounds(t, pool, zone, instants[zone])
	}
	require.NoError(t, node.Wait())
	requireNodesBounds(t, answer, changes, instants)
}

// acceptedZones lists the names that Postgres has and a budget may use.
func acceptedZones(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := pool.Query(ctx(), "SELECT name FROM pg_timezone_names ORDER BY name")
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return slices.DeleteFunc(names, func(name string) bool {
		limit := int64(1)
		request := earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit, Window: earmark.Window{Timezone: name}}.WithDefaults()
		return request.Validate() != nil
	})
}

func offsetOf(t *testing.T, zone string) int {
	t.Helper()
	location, err := time.LoadLocation(zone)
	require.NoError(t, err)
	_, offset := zonesFrom.In(location).Zone()
	return offset
}

// requireSameClocks reads the clocks of every zone in Postgres and in Go, at both sides
// of each change and in the middle between two. It takes zones with other data from
// changes.
func requireSameClocks(t *testing.T, pool *pgxpool.Pool, changes map[string][]clockChange) {
	t.Helper()
	const sql = `SELECT extract(epoch FROM (i.at AT TIME ZONE $1) - (i.at AT TIME ZONE 'UTC'))::int
		FROM unnest($2::timestamptz[]) WITH ORDINALITY AS i (at, n) ORDER BY i.n`
	count := len(changes)
	var differ []string
	for zone, list := range changes {
		location, err := time.LoadLocation(zone)
		require.NoError(t, err)
		instants := []time.Time{zonesFrom, zonesTo}
		last := zonesFrom
		for _, change := range list {
			at := change.at()
			instants = append(instants, last.Add(at.Sub(last)/2).Truncate(time.Second), at.Add(-time.Second), at)
			last = at
		}
		rows, err := pool.Query(ctx(), sql, zone, instants)
		require.NoError(t, err)
		offsets, err := pgx.CollectRows(rows, pgx.RowTo[int])
		require.NoError(t, err)
		for i, at := range instants {
			if _, offset := at.In(location).Zone(); offset != offsets[i] {
				differ = append(differ, fmt.Sprintf("%s at %s: Postgres %d s, Go %d s ahead of UTC", zone, at.Format(time.RFC3339), offsets[i], offset))
				delete(changes, zone)
				break
			}
		}
	}
	requireMostlySame(t, "Postgres and Go", count, differ)
}

// requireMostlySame fails when too few zones can be compared.
func requireMostlySame(t *testing.T, who string, count int, differ []string) {
	t.Helper()
	slices.Sort(differ)
	for _, d := range differ {
		t.Logf("not compared, since %s have other time-zone data: %s", who, d)
	}
	require.GreaterOrEqual(t, (count-len(differ))*100, count*sameDataShare, "%s have other time-zone data for %d of %d zones", who, len(differ), count)
}

// requireModelsBounds compares the windows of a zone in Postgres with those in Go, and
// requires that they follow each other without gap and overlap.
func requireModelsBounds(t *testing.T, pool *pgxpool.Pool, zone string, instants []time.Time) {
	t.Helper()
	var windows []earmark.Window
	for _, period := range periods {
		windows = append(windows, earmark.Window{Period: period})
	}
	requireModelsWindows(t, pool, zone, windows, instants)
	const share = 20 // one in twenty is enough: the rules are those of plain periods
	var some []time.Time
	for i := len(zone) % share; i < len(instants); i += share {
		some = append(some, instants[i])
	}
	requireModelsWindows(t, pool, zone, anchored, some)
}

func requireModelsWindows(t *testing.T, pool *pgxpool.Pool, zone string, windows []earmark.Window, instants []time.Time) {
	t.Helper()
	for _, w := range windows {
		w.Timezone = zone
		found := boundsOf(t, pool, w, instants)
		seen := map[bounds]bool{}
		var edges []time.Time
		for i, at := range instants {
			start, end := ledgertest.Bounds(w, at)
			if !found[i].Start.Equal(start) || !found[i].End.Equal(*end) {
				require.Failf(t, "Postgres and Go differ", "%+v at %s: Postgres has %s, Go %s; %s", w, stampOf(&at), found[i], bounds{start, end}, versions(t, pool))
			}
			if at.Before(start) || !at.Before(*end) {
				require.Failf(t, "not in its window", "%+v at %s is %s", w, stampOf(&at), found[i])
			}
			if one := (bounds{Start: start}); !seen[one] {
				seen[one] = true
				edges = append(edges, start.Add(-time.Microsecond), start, *end)
			}
		}
		near := boundsOf(t, pool, w, edges)
		for i := 0; i < len(edges); i += 3 {
			before, first, after := near[i], near[i+1], near[i+2]
			start, end := edges[i+1], edges[i+2]
			if !before.End.Equal(start) || !first.Start.Equal(start) || !first.End.Equal(end) || !after.Start.Equal(end) {
				require.Failf(t, "windows do not follow each other", "%+v: %s, then %s, then %s", w, before, first, after)
			}
		}
	}
}

// nodeAnswer is what testdata/windows.mjs prints.
type nodeAnswer struct {
	Node   string
	TZData string `json:"tzdata"`
	Zones  map[string]struct {
		Changes [][2]int64 // instant and offset, in seconds
		Windows map[earmark.Period][][2]int64
	}
}

// wholeSeconds are the instants that Node is asked for.
func wholeSeconds(instants []time.Time) []int64 {
	var seconds []int64
	for _, at := range instants {
		if at.Nanosecond() == 0 {
			seconds = append(seconds, at.Unix())
		}
	}
	return seconds
}

func askNode(instants map[string][]time.Time) (answer nodeAnswer, err error) {
	zones := map[string][]int64{}
	for zone, list := range instants {
		zones[zone] = wholeSeconds(list)
	}
	input, err := json.Marshal(map[string]any{"from": zonesFrom.Unix(), "to": zonesTo.Unix(), "zones": zones})
	if err != nil {
		return answer, err
	}
	var failure bytes.Buffer
	cmd := exec.CommandContext(ctx(), "node", "testdata/windows.mjs")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), &failure
	output, err := cmd.Output()
	if err != nil {
		return answer, fmt.Errorf("node: %w: %s", err, failure.String())
	}
	return answer, json.Unmarshal(output, &answer)
}

// requireNodesBounds compares Node's windows with Go's where both know the same changes
// of clocks: Node brings time-zone data of its own.
func requireNodesBounds(t *testing.T, answer nodeAnswer, changes map[string][]clockChange, instants map[string][]time.Time) {
	t.Helper()
	who := fmt.Sprintf("Node %s (tzdata %s) and Go", answer.Node, answer.TZData)
	var differ []string
	compared := 0
	for zone, list := range instants {
		node, known := answer.Zones[zone]
		if !known {
			differ = append(differ, zone+": Node does not know the name")
			continue
		}
		var changesInNode []clockChange
		for _, c := range node.Changes {
			changesInNode = append(changesInNode, clockChange{c[0], int(c[1])})
		}
		if !slices.Equal(changes[zone], changesInNode) {
			differ = append(differ, zone+": "+firstDifference(changes[zone], changesInNode))
			continue
		}
		for _, period := range periods {
			windows := node.Windows[period]
			seconds := wholeSeconds(list)
			require.Len(t, windows, len(seconds), "%s of %s", period, zone)
			for i, at := range seconds {
				start, end := ledgertest.Bounds(earmark.Window{Period: period, Timezone: zone}, time.Unix(at, 0))
				if windows[i] != [2]int64{start.Unix(), end.Unix()} {
					require.Failf(t, "Node and Go differ", "%s of %s at %d: Node has %v, Go [%d %d]", period, zone, at, windows[i], start.Unix(), end.Unix())
				}
				compared++
			}
		}
	}
	requireMostlySame(t, who, len(instants), differ)
	t.Logf("%s have the same bounds for %d instants of %d histories", who, compared, len(instants)-len(differ))
}

func firstDifference(a, b []clockChange) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("%s to %d s in Go, %s to %d s in Node", a[i].at(), a[i].OffsetSeconds, b[i].at(), b[i].OffsetSeconds)
		}
	}
	return fmt.Sprintf("%d changes of clocks in Go, %d in Node", len(a), len(b))
}

// versions names the time-zone data that are compared, as far as it can be known.
func versions(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	var server string
	require.NoError(t, pool.QueryRow(ctx(), "SELECT version()").Scan(&server))
	const systemZones = "/usr/share/zoneinfo"
	system := "none, so Go has its own"
	if file, err := os.Open(systemZones + "/tzdata.zi"); err == nil {
		defer func() { _ = file.Close() }()
		first, _ := bufio.NewReader(file).ReadString('\n')
		system = strings.TrimSpace(strings.TrimPrefix(first, "# version"))
	}
	return fmt.Sprintf("tzdata of the system in %s: %s (Go reads it unless ZONEINFO is set, %q; Postgres does where it was built so); %s", systemZones, system, os.Getenv("ZONEINFO"), server)
}
