//go:build unix

package chaos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/keys"
)

// triedIDs is how many reservations of the other tenant each call is tried with.
const triedIDs = 10

// crossing looks for what one tenant has, sees or did of the other's.
type crossing struct {
	*driver
	*cluster
	rows     map[string]*row
	owners   map[string]string // tenants of reservations, budgets and keys, by id
	problems []string
}

// crossings lists the crossings, each with its evidence. It runs when nothing changes any more.
func (d *driver) crossings(c *cluster) []string {
	x := &crossing{driver: d, cluster: c, rows: readRows(c.t, c.Pool()), owners: map[string]string{}}
	for _, l := range d.lives {
		x.owners[l.ID] = l.Tenant
	}
	for _, own := range d.tenants {
		for _, budget := range own.budgets.list {
			x.owners[budget.ID] = own.name
		}
		for _, id := range own.keyIDs() {
			x.owners[id] = own.name
		}
	}
	for _, t := range d.trespasses {
		if t.outcome != unknown && (t.outcome != refused || t.code != earmark.CodeNotFound) {
			x.complain("%s: %s by the other tenant at %s: %s %s", t.id, t.verb, clock(&t.at), t.outcome, t.code)
		}
	}
	x.ledger()
	x.searches()
	for i, own := range d.tenants {
		server := c.nodes[i].server.URL
		x.lists(own, server)
		x.ids(own, server)
		x.statusPage(own, server)
	}
	for _, n := range c.nodes[:2] {
		metrics := x.ask(http.MethodGet, n.server.URL+"/metrics", "", nil)
		x.scan(nil, "/metrics", metrics.body)
	}
	return x.problems
}

func (x *crossing) complain(format string, args ...any) {
	x.problems = append(x.problems, fmt.Sprintf(format, args...))
}

// ledger looks for rows of one tenant that refer to the other's, and adds up what each tenant has.
func (x *crossing) ledger() {
	pool := x.Pool()
	for id, r := range x.rows {
		if r.Tenant != x.owners[id] {
			x.complain("%s belongs to %s, and %s asked for it", id, r.Tenant, x.owners[id])
		}
	}
	for _, row := range collect[struct{ What, ID string }](x.t, pool, `
		SELECT 'a share of' AS what, r.id FROM earmark.reservation_budgets s JOIN earmark.reservations r ON r.id = s.reservation_id
			JOIN earmark.budgets b ON b.id = s.budget_id WHERE r.tenant <> b.tenant
		UNION ALL SELECT 'an entry of', r.id FROM earmark.entries e JOIN earmark.reservations r ON r.id = e.reservation_id WHERE e.tenant <> r.tenant
		UNION ALL SELECT 'an entry of', b.id FROM earmark.entries e JOIN earmark.budgets b ON b.id = e.budget_id WHERE e.tenant <> b.tenant
		UNION ALL SELECT 'the actor of the entry', e.id::text FROM earmark.entries e, earmark.keys k WHERE e.actor LIKE '%key:' || k.id AND k.tenant <> e.tenant
		UNION ALL SELECT 'a record of', b.id FROM earmark.audit_log a JOIN earmark.budgets b ON b.id = a.subject WHERE a.tenant <> b.tenant
		UNION ALL SELECT 'the actor of the record', a.id::text FROM earmark.audit_log a, earmark.keys k WHERE a.actor LIKE '%key:' || k.id AND k.tenant <> a.tenant`) {
		x.complain("%s %s is of the other tenant", row.What, row.ID)
	}
	type sum struct {
		Tenant              string
		Reserved, Committed int64
	}
	sums := func(sql string) []sum { return collect[sum](x.t, pool, sql+" GROUP BY 1 ORDER BY 1") }
	windows := sums(`SELECT b.tenant, sum(w.reserved)::bigint AS reserved, sum(w.committed)::bigint AS committed
		FROM earmark.windows w JOIN earmark.budgets b ON b.id = w.budget_id`)
	require.Len(x.t, windows, len(x.tenants))
	entries := sums("SELECT tenant, sum(reserved_delta)::bigint AS reserved, sum(committed_delta)::bigint AS committed FROM earmark.entries")
	shares := sums(`SELECT r.tenant, coalesce(sum(s.reserved) FILTER (WHERE r.state IN ('held', 'review')), 0)::bigint AS reserved, sum(s.committed)::bigint AS committed
		FROM earmark.reservation_budgets s JOIN earmark.reservations r ON r.id = s.reservation_id`)
	if !slices.Equal(windows, entries) || !slices.Equal(windows, shares) {
		x.complain("by tenant the windows add up to %v, the entries to %v and the reservations to %v", windows, entries, shares)
	}
}

// searches asks Temporal for the workflows of each tenant.
func (x *crossing) searches() {
	for _, own := range x.tenants {
		found := x.workflows("EarmarkTenant = '" + own.name + "'")
		require.NotEmpty(x.t, found)
		for _, id := range found {
			if of := x.owners[strings.TrimPrefix(id, "reservation-")]; of != own.name {
				x.complain("Temporal shows %s as of %s, and %s asked for it", id, own.name, of)
			}
		}
	}
}

var resourceID = regexp.MustCompile(`\b(rsv|bud)_[a-z0-9]+`)

// scan looks for what is not the tenant's own in a text that it may read; a nil tenant may read what is nobody's.
func (x *crossing) scan(own *tenant, what, text string) {
	name := ""
	if own != nil {
		name = own.name
	}
	for _, id := range resourceID.FindAllString(text, -1) {
		if x.owners[id] != name {
			x.complain("%s shows %q the id %s of %q", what, name, id, x.owners[id])
		}
	}
	for _, other := range x.tenants {
		for _, word := range append(other.keyIDs(), other.name) {
			if other != own && strings.Contains(text, word) {
				x.complain("%s shows %q the word %q", what, name, word)
			}
		}
	}
}

// said is an answer, without what differs between any two.
type said struct {
	status int
	header string
	body   string
}

// ask makes a call past the client. A key is sent as such, a cookie as such, and without either nothing.
func (x *crossing) ask(method, address, body string, header http.Header) said {
	t := x.t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	require.NoError(t, err)
	request.Header = header.Clone()
	if request.Header == nil {
		request.Header = http.Header{}
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultTransport.RoundTrip(request) // follows no redirection
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	response.Header.Del("Date")
	return said{response.StatusCode, fmt.Sprint(response.Header), string(text)}
}

func withKey(key string) http.Header { return http.Header{"Authorization": {"Bearer " + key}} }

// lists reads each list to its end: it has all that is the tenant's, and nothing else. The other tenant cannot go
// on with its cursor.
func (x *crossing) lists(own *tenant, server string) {
	count := func(sql string) (n int) {
		require.NoError(x.t, x.Pool().QueryRow(context.Background(), "SELECT count(*) FROM earmark."+sql, own.name).Scan(&n))
		return n
	}
	for path, rows := range map[string]int{
		"/v1/reservations?": count("reservations WHERE tenant = $1"),
		"/v1/budgets?":      count("budgets WHERE tenant = $1 AND archived_at IS NULL"),
		"/v1/entries?":      count("entries WHERE tenant = $1"),
		"/v1/keys?":         count("keys WHERE tenant = $1"),
		"/v1/audit?":        count("audit_log WHERE tenant = $1"),
		// What is stuck depends on Temporal too: whose it is counts here, not how many there are.
		"/v1/reservations?stuck=true&": -1,
	} {
		var page struct {
			Data []struct {
				ID     any    `json:"id"`
				UIURL  string `json:"ui_url"`
				Tenant string `json:"tenant"`
			}
			NextCursor string `json:"next_cursor"`
		}
		read := func(as *tenant, query string) said {
			got := x.ask(http.MethodGet, server+path+query, "", withKey(as.key))
			if got.status == http.StatusOK {
				page.Data = nil
				require.NoError(x.t, json.Unmarshal([]byte(got.body), &page))
			}
			return got
		}
		seen := 0
		for cursor := ""; ; cursor = page.NextCursor {
			got := read(own, "limit=500&cursor="+url.QueryEscape(cursor))
			require.Equal(x.t, http.StatusOK, got.status, "%s: %s", path, got.body)
			x.scan(own, path, got.body)
			for _, one := range page.Data {
				if one.UIURL != "" && one.UIURL != fmt.Sprintf("%s/namespaces/%s/workflows/reservation-%v", uiURL, x.Namespace, one.ID) {
					x.complain("%s links %v to %s", path, one.ID, one.UIURL)
				}
			}
			seen += len(page.Data)
			if page.NextCursor == "" {
				break
			}
		}
		if rows >= 0 && seen != rows {
			x.complain("%s shows %s %d rows of %d", path, own.name, seen, rows)
		}
		if read(own, "limit=1"); page.NextCursor == "" {
			require.Less(x.t, rows, 2, path)
			continue
		}
		if got := read(x.other(own.name), "limit=1&cursor="+url.QueryEscape(page.NextCursor)); got.status != http.StatusBadRequest {
			x.complain("%s goes on for the other tenant with a cursor of %s: %d %s", path, own.name, got.status, got.body)
		}
	}
}

// ids makes every call that takes an id with ids of the other tenant: the answer is the one to an id that never was.
func (x *crossing) ids(own *tenant, server string) {
	type try struct{ method, path, body string }
	same := func(id, never string, tries []try) {
		for _, try := range tries {
			ask := func(id string) said {
				got := x.ask(try.method, server+strings.ReplaceAll(try.path, "ID", id), try.body, withKey(own.key))
				got.body = strings.ReplaceAll(got.body, id, "ID")
				return got
			}
			got, want := ask(id), ask(never)
			empty := try.method == http.MethodGet && strings.HasPrefix(want.body, `{"data":[]`)
			require.True(x.t, want.status == http.StatusNotFound || empty, "%v: %v", try, want)
			if got != want {
				x.complain("%s %s of %s answers %s %v, and for an id that never was %v", try.method, try.path, id, own.name, got, want)
			}
		}
	}
	other := x.other(own.name)
	tried := 0
	for id, r := range x.rows {
		if r.Tenant == other.name && tried < triedIDs {
			tried++
			same(id, earmark.ReservationID(own.name, "never"), []try{
				{http.MethodGet, "/v1/reservations/ID", ""}, {http.MethodGet, "/v1/entries?reservation_id=ID", ""},
				{http.MethodPost, "/v1/reservations/ID/commit", `{"usage":{"tokens":1}}`}, {http.MethodPost, "/v1/reservations/ID/release", ""},
				{http.MethodPost, "/v1/reservations/ID/extend", `{"ttl_seconds":60}`}, {http.MethodPost, "/v1/reservations/ID/adopt", ""},
			})
		}
	}
	for _, budget := range other.budgets.list {
		same(budget.ID, earmark.NewBudgetID(), []try{
			{http.MethodGet, "/v1/budgets/ID", ""}, {http.MethodGet, "/v1/entries?budget_id=ID", ""},
			{http.MethodPatch, "/v1/budgets/ID", `{"limit":1}`}, {http.MethodDelete, "/v1/budgets/ID", ""},
		})
	}
	for _, id := range other.keyIDs() {
		same(id, keys.New().ID, []try{{http.MethodPost, "/v1/keys/ID/rotate", ""}, {http.MethodPost, "/v1/keys/ID/revoke", ""}})
	}
}

// statusPage reads what the status page of a browser reads that has signed in with a key.
func (x *crossing) statusPage(own *tenant, server string) {
	t := x.t
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server+"/sign-in", strings.NewReader(url.Values{"key": {own.browser}}.Encode()))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultTransport.RoundTrip(request) // follows no redirection
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusSeeOther, response.StatusCode)
	require.Len(t, response.Cookies(), 1)
	cookie := http.Header{"Cookie": {response.Cookies()[0].Name + "=" + response.Cookies()[0].Value}}
	for _, path := range []string{"/", "/sign-in", "/readyz", "/v1/whoami", "/v1/overview", "/v1/budgets", "/v1/reservations", "/v1/reservations?stuck=true", "/v1/entries"} {
		got := x.ask(http.MethodGet, server+path, "", cookie)
		require.Equal(t, http.StatusOK, got.status, "%s: %s", path, got.body)
		x.scan(own, "the status page by "+path, got.body)
	}
	var overview earmark.Overview
	require.NoError(t, json.Unmarshal([]byte(x.ask(http.MethodGet, server+"/v1/overview", "", cookie).body), &overview))
	open := 0
	for _, r := range x.rows {
		if r.Tenant == own.name && (r.State == earmark.StateHeld || r.State == earmark.StateReview) {
			open++
		}
	}
	if overview.Held+overview.Review != int64(open) {
		x.complain("the status page shows %s %d open reservations of %d", own.name, overview.Held+overview.Review, open)
	}
}
