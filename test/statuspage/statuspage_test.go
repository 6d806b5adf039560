//go:build browser && unix

package statuspage_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
)

const (
	holds   = 1000 // a thousand holds is a busy server
	holders = 8    // at once
	budgets = 60
	// temporalUI is where links to workflows lead; nobody follows them.
	temporalUI = "http://127.0.0.1:8233"
)

func newClient(t *testing.T, server *stack.Server) *client.Client {
	t.Helper()
	c, err := client.New(server.URL)
	require.NoError(t, err)
	return c
}

func limited(scope string, limit int64) earmark.BudgetRequest {
	return earmark.BudgetRequest{Scope: scope, Unit: "tokens", Limit: &limit}
}

// An empty server says what to do first; the command that it shows does that, and the
// page notices by itself.
func TestBrowserEmpty(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve().Ready()
	v := open(t, server.URL)
	v.await(`document.querySelector("#budgets .lead").innerText.startsWith("There is no budget yet")`)
	v.await(`document.querySelector("#health").innerText.includes("Postgres up") && document.querySelector("#health").innerText.includes("Temporal up")`)
	v.await(`document.querySelector("#stuck .lead").innerText.startsWith("Nothing is stuck")`)
	v.await(`document.querySelector("#holds .lead").innerText === "Nothing is held."`)
	require.Contains(t, v.text("#budgets .first"), "curl -s "+server.URL+"/v1/budgets")
	require.Empty(t, v.text("#budgets table"))
	require.Empty(t, v.text("#trouble"))

	// The first stop of the keyboard skips what every visit begins with.
	v.press(kb.Tab)
	require.Equal(t, "Skip to the content", ask[string](v, `document.activeElement.innerText`))
	require.NotEqual(t, "none", ask[string](v, `getComputedStyle(document.activeElement).outlineStyle`), "the focus is seen")
	v.press(kb.Enter)
	for range 5 { // three numbers, and two commands to copy
		v.press(kb.Tab)
	}
	require.Equal(t, "Copy: The same from the command line", ask[string](v, `document.activeElement.ariaLabel`))
	v.press(kb.Enter)
	v.await(`document.activeElement.innerText === "Copied"`)
	require.Equal(t, "Copied", v.text("#news"))
	command := ask[string](v, `navigator.clipboard.readText()`)
	require.Equal(t, "earmark budget create acme tokens 1,000 --url "+server.URL, command)

	path := "PATH=" + filepath.Dir(stack.Binary(t))
	made := stack.RunCommand(t, append(s.Env(), path), "/bin/sh", "-c", command)
	require.Zero(t, made.Code, made.Stderr)
	v.await(`document.querySelector("#budgets tbody .scope")?.innerText === "acme"`)
	require.Empty(t, v.text("#budgets .first"))
	v.content()
}

// busy is a server with a thousand holds, many budgets, and a few things that are wrong.
func busy(t *testing.T) (*stack.Stack, *stack.Server) {
	t.Helper()
	s := stack.New(t, stack.Options{})
	server := s.Serve("--ui-url", temporalUI).Ready()
	c := newClient(t, server)
	ctx := context.Background()
	for i := range budgets {
		_, err := c.CreateBudget(ctx, limited(fmt.Sprintf("team%d", i), 1_000_000))
		require.NoError(t, err)
	}
	_, err := c.CreateBudget(ctx, limited("huge", 9_223_372_036_854_775_807))
	require.NoError(t, err)
	over := limited("over", 900)
	over.Thresholds = []earmark.Threshold{{Percent: 80, Of: earmark.ThresholdOfCommitted}, {Amount: 500, Of: earmark.ThresholdOfUsed}}
	made, err := c.CreateBudget(ctx, over)
	require.NoError(t, err)
	_, err = c.CreateOverride(ctx, made.ID, "a-bit-more", earmark.OverrideRequest{Amount: 100, Reason: "a bit more"})
	require.NoError(t, err)
	_, err = c.ChargeUsage(ctx, "over", earmark.UsageRequest{Scopes: []string{"over"}, Amounts: earmark.Amounts{"tokens": 1_300}})
	require.NoError(t, err)

	var group errgroup.Group
	group.SetLimit(holders)
	for i := range holds {
		group.Go(func() error {
			_, err := c.Reserve(ctx, fmt.Sprintf("hold-%d", i), earmark.ReservationRequest{
				Scopes: []string{fmt.Sprintf("team%d/u%d", i%budgets, i)}, Amounts: earmark.Amounts{"tokens": 100}, TTLSeconds: 3600,
			})
			return err
		})
	}
	require.NoError(t, group.Wait())
	return s, server
}

// wrong makes two reservations that wait for somebody, with what a caller may send.
func wrong(t *testing.T, server *stack.Server) {
	t.Helper()
	c := newClient(t, server)
	for i := range 2 {
		r, err := c.Reserve(context.Background(), fmt.Sprintf("review-%d", i), earmark.ReservationRequest{
			Scopes: []string{"team1/review"}, Amounts: earmark.Amounts{"tokens": 5}, TTLSeconds: 1, OnExpiry: earmark.OnExpiryReview,
			Metadata: earmark.Metadata{"note": `<img src=x onerror="window.hacked=1">`},
		})
		require.NoError(t, err)
		stack.Eventually(t, moment, "the review", func() bool {
			got, err := c.Reservation(context.Background(), r.ID)
			return err == nil && got.State == earmark.StateReview
		})
	}
}

func TestBrowserBusy(t *testing.T) {
	t.Parallel()
	s, server := busy(t)
	wrong(t, server)
	overdue := earmark.ReservationID(earmark.DefaultTenant, "hold-7")
	s.Exec("UPDATE earmark.reservations SET expires_at = clock_timestamp() - interval '20 seconds' WHERE id = $1", overdue)
	s.Exec("UPDATE earmark.reservations SET created_at = clock_timestamp() - interval '2 hours' WHERE id = $1", overdue)
	v := open(t, server.URL)
	v.await(`document.querySelector("#holds-count").innerText === "1,002"`)
	v.await(`document.querySelector("#stuck-count").innerText === "3"`)
	v.await(`document.querySelector("#budgets-count").innerText === "62"`)
	require.Equal(t, "1 over the limit", v.text("#budgets-brief"))

	require.Equal(t, []string{"expiry missed", "in review"}, ask[[]string](v, `[...document.querySelectorAll("#stuck h3")].map((h) => h.innerText)`))
	require.Contains(t, v.text("#stuck"), `note: <img src=x onerror="window.hacked=1">`)
	require.False(t, ask[bool](v, `"hacked" in window || document.querySelectorAll("main img").length > 0`))
	require.Contains(t, v.text("#stuck"), "earmark release "+overdue)
	require.Equal(t, 3, ask[int](v, `document.querySelectorAll("#stuck .groups a[href^='`+temporalUI+`/']").length`))

	require.Equal(t, "1,000 held, 2 in review, 1 overdue, 0 orphans.", v.text("#holds .lead"))
	require.Equal(t, []string{"1 h to 6 h", "1", "", "100 tokens"}, ask[[]string](v, `[...document.querySelectorAll(".ages tbody tr")[4].cells].map((c) => c.innerText)`))
	require.Equal(t, 10, ask[int](v, `document.querySelectorAll(".oldest tbody tr").length`))

	checkBudgets(t, v)
	checkUsage(t, v)
	v.content()
}

// checkUsage opens the chart of the budget "over", whose charge is past its limit.
func checkUsage(t *testing.T, v *visit) {
	t.Helper()
	v.run(chromedp.Focus("#budgets .usage-of"))
	v.press(kb.Enter)
	v.await(`!document.querySelector("#usage").hidden`)
	require.Contains(t, v.text("#usage figcaption"), "over, tokens: 1,300 committed, 0 reserved, 300 over the limit, limit 1,000 with overrides and grants, 900 without.")
	require.Contains(t, v.text("#usage figcaption"), "and the dotted ones are thresholds: 720 committed (80 %), 500 used.")
	box := func(selector string) float64 {
		return ask[float64](v, fmt.Sprintf(`document.querySelector("#usage %s").getBoundingClientRect().height`, selector))
	}
	above := func(edge, selector string) float64 { // the bottom of the chart
		return ask[float64](v, fmt.Sprintf(`document.querySelector("#usage svg").getBoundingClientRect().bottom - document.querySelector("#usage %s").getBoundingClientRect().%s`, selector, edge))
	}
	limit := above("bottom", ".most")
	require.InEpsilon(t, 0.72, above("top", ".thresholds")/limit, 0.05, "the upper threshold against the limit")
	require.InEpsilon(t, 0.5, above("bottom", ".thresholds")/limit, 0.05, "the lower one")
	require.InEpsilon(t, 1.3, box(".settled")/limit, 0.05, "what is committed against the limit")
	require.Zero(t, box(".held"), "nothing is reserved")
	v.run(chromedp.Evaluate(`document.querySelector("#usage summary").click()`, nil))
	require.Equal(t, []string{"1,300", "1,300"}, ask[[]string](v, `[...document.querySelectorAll("#usage .steps td")].map((c) => c.innerText)`))
	v.press(kb.Enter)
	v.await(`document.querySelector("#usage").hidden`)
	require.Equal(t, "false", ask[string](v, `document.activeElement.getAttribute("aria-pressed")`), "the focus stays")
}

// checkBudgets filters and turns the pages of the budgets.
func checkBudgets(t *testing.T, v *visit) {
	t.Helper()
	rows := func() []string {
		return ask[[]string](v, `[...document.querySelectorAll("#budgets tbody .scope")].map((s) => s.innerText)`)
	}
	require.Len(t, rows(), 25)
	require.Equal(t, []string{"huge", "over", "team0", "team1", "team2"}, rows()[:5], "in the order that people count in")
	require.Equal(t, "9,223,372,036,854,775,807", ask[string](v, `document.querySelectorAll("#budgets tbody tr")[0].cells[5].innerText`), "to the last digit")
	over := ask[string](v, `document.querySelectorAll("#budgets tbody tr")[1].innerText`)
	for _, part := range []string{"130 %", "300 over the limit", "1,300"} {
		require.Contains(t, over, part)
	}
	require.Equal(t, "0", ask[string](v, `document.querySelectorAll("#budgets tbody tr")[1].cells[4].innerText`), "available")

	v.run(chromedp.Focus("#budgets .pager button:last-child"))
	v.press(kb.Enter)
	require.Equal(t, "26 to 50 of 62", v.text("#budgets .pager span"))
	require.Equal(t, "Next", ask[string](v, `document.activeElement.innerText`), "the focus stays")
	v.press(kb.Enter)
	v.press(kb.Enter)
	require.Equal(t, "51 to 62 of 62", v.text("#budgets .pager span"), "the last page is the last")
	require.Equal(t, "Next", ask[string](v, `document.activeElement.innerText`))

	v.run(chromedp.Focus("#filter"))
	v.press("team5")
	require.Equal(t, "11 of 62 budgets.", v.text("#budgets .lead"))
	before := v.text("#refreshed")
	v.await(fmt.Sprintf(`document.querySelector("#refreshed").innerText !== %q`, before))
	require.Len(t, rows(), 11, "a refresh leaves the filter")
	require.Equal(t, "filter", ask[string](v, `document.activeElement.id`), "and the focus")
	v.run(chromedp.Evaluate(`document.querySelector("#filter").value = ""; document.querySelector("#level").value = "over"; document.querySelector("#level").dispatchEvent(new Event("input"))`, nil))
	require.Equal(t, []string{"over"}, rows())
}

// What is given to a budget is listed with its chart, as long as it counts: overrides, and grants in the order in which they are used.
func TestBrowserGrants(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve().Ready()
	c := newClient(t, server)
	ctx := context.Background()
	budget := limited("acme", 1_000)
	budget.Window = earmark.Window{Period: earmark.PeriodMonth, Timezone: "Europe/Berlin"}
	made, err := c.CreateBudget(ctx, budget)
	require.NoError(t, err)
	grant := func(amount, priority int64, reason string, from, until *time.Time) string {
		made, err := c.CreateGrant(ctx, made.ID, reason, earmark.GrantRequest{Amount: amount, Priority: &priority, EffectiveAt: from, ExpiresAt: until, Reason: reason})
		require.NoError(t, err)
		return made.ID
	}
	override := func(amount int64, reason string) string {
		made, err := c.CreateOverride(ctx, made.ID, reason, earmark.OverrideRequest{Amount: amount, Reason: reason})
		require.NoError(t, err)
		return made.ID
	}
	tomorrow, newYear := time.Now().AddDate(0, 0, 1), time.Date(time.Now().Year()+2, 1, 1, 0, 0, 0, 0, time.UTC)
	packed := grant(500, 50, "bought", nil, nil)
	grant(400, 50, "<b>expires first</b>", nil, &newYear)
	grant(300, 10, "used first", nil, nil)
	grant(200, 10, "tomorrow's", &tomorrow, nil)
	grant(100, 1, "used up", nil, nil)
	voided := grant(50, 10, "voided", nil, nil)
	_, err = c.VoidGrant(ctx, made.ID, voided, "a mistake")
	require.NoError(t, err)
	override(-200, "a cut")
	ended := override(70, "ended")
	_, err = c.EndOverride(ctx, made.ID, ended, "enough")
	require.NoError(t, err)
	_, err = c.ChargeUsage(ctx, "charge", earmark.UsageRequest{Scopes: []string{"acme"}, Amounts: earmark.Amounts{"tokens": 800 + 100 + 30}}) // the limit, a grant, a part of the next
	require.NoError(t, err)

	v := open(t, server.URL)
	v.await(`document.querySelector("#budgets-count").innerText === "1"`)
	v.run(chromedp.Focus("#budgets .usage-of"))
	v.press(kb.Enter)
	v.await(`document.querySelectorAll(".given tbody tr").length === 4`)
	rows := func() [][]string {
		return ask[[][]string](v, `[...document.querySelectorAll(".given tbody tr")].map((r) => [...r.cells].map((c) => c.innerText))`)
	}
	require.Equal(t, []string{"In force", "Amount", "Left", "Until", "Why"}, ask[[]string](v, `[...document.querySelectorAll(".given thead th")].map((h) => h.innerText)`))
	require.Equal(t, [][]string{
		{"override, manual", "-200", "", "no end", "a cut"},
		{"grant, manual", "+300", "270", "no end", "used first"},
		{"grant, manual", "+400", "400", fmt.Sprintf("1 Jan %d, 01:00 Europe/Berlin", newYear.Year()), "<b>expires first</b>"},
		{"grant, manual", "+500", "500", "no end", "bought"},
	}, rows())

	_, err = c.VoidGrant(ctx, made.ID, packed, "paid back")
	require.NoError(t, err)
	v.await(`document.querySelectorAll(".given tbody tr").length === 3`)
	require.NotContains(t, v.text(".given"), "bought")
	v.content()
}

// Old numbers are never shown as fresh.
func TestBrowserServerAway(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve().Ready()
	_, err := newClient(t, server).CreateBudget(context.Background(), limited("acme", 1_000))
	require.NoError(t, err)
	v := open(t, server.URL)
	v.await(`document.querySelector("#budgets-count").innerText === "1" && document.querySelector("#stuck-count").innerText === "0"`)
	v.await(`document.querySelector("#holds-count").innerText === "0" && document.querySelector("#health").innerText.includes("up")`)
	v.content()
	require.Zero(t, ask[int](v, `document.querySelectorAll("[data-old]").length`))

	server.Kill()
	v.await(`document.querySelectorAll("section[data-old]").length === 4`)
	require.Equal(t, "The server does not answer. What you see is old.", v.text("#trouble"))
	require.Equal(t, v.text("#trouble"), v.text("#news"))
	require.Equal(t, "Health unknown", v.text("#health"))
	require.Contains(t, v.text("#budgets .old"), "Not current: this is from ")
	require.Contains(t, v.text("#refreshed"), "Last refreshed ")

	server.Start()
	v.await(`document.querySelector("#trouble").hidden && !document.querySelector("[data-old]")`)
	require.Contains(t, v.text("#health"), "Postgres up")
	require.Equal(t, "The page is current again.", v.text("#news"))
	v.forgive()

	// Paused, the page asks no more and says so once its numbers are old.
	v.run(chromedp.Focus("#pause"))
	v.press(kb.Enter)
	require.Equal(t, "Resume", v.text("#pause"))
	v.await(`document.querySelector("#trouble").innerText === "Refreshing is paused. What you see is old."`)
	v.press(kb.Enter)
	v.await(`document.querySelector("#trouble").hidden`)
	v.content()
}

// A server that answers without its Postgres says so, and keeps what was read before as old.
func TestBrowserPostgresAway(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{OwnPostgres: true})
	server := s.Serve().Ready()
	_, err := newClient(t, server).CreateBudget(context.Background(), limited("acme", 1_000))
	require.NoError(t, err)
	v := open(t, server.URL)
	v.await(`document.querySelector("#budgets-count").innerText === "1"`)

	s.Postgres.Stop()
	v.await(`document.querySelectorAll("section[data-old]").length === 4 && document.querySelector("#trouble").innerText.startsWith("Postgres is down: ")`)
	require.Equal(t, []string{"Postgres down", "Temporal up", "Worker up"}, strings.Split(v.text("#health"), "\n"))
	require.Contains(t, v.text("#trouble"), "What you see is old.")
	late := open(t, server.URL) // a visitor who has seen nothing before
	late.await(`document.querySelector("#budgets .lead").innerText.startsWith("Not loaded. The server says: ")`)
	require.Empty(t, late.text("#budgets table"))

	s.Postgres.Start()
	for _, tab := range []*visit{v, late} {
		tab.await(`document.querySelector("#trouble").hidden && document.querySelector("#budgets-count").innerText === "1"`)
		tab.forgive()
	}
}

// Whoever opens the page while no worker runs reads the cause and the remedy within 10 s, beside what the page shows
// otherwise.
func TestBrowserNoWorker(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve("--without-worker").Ready()
	_, err := newClient(t, server).CreateBudget(context.Background(), limited("acme", 1_000))
	require.NoError(t, err)
	v := open(t, server.URL)
	opened := time.Now()
	v.await(`document.querySelector("#trouble").innerText.startsWith("Worker is down: no worker polls the task queue earmark")`)
	require.Less(t, time.Since(opened), 10*time.Second)
	require.Contains(t, v.text("#trouble"), "start `earmark worker`")
	require.Equal(t, []string{"Postgres up", "Temporal up", "Worker down"}, strings.Split(v.text("#health"), "\n"))
	v.await(`document.querySelector("#budgets-count").innerText === "1"`)

	s.Worker()
	v.await(`document.querySelector("#trouble").hidden && document.querySelector("#health").innerText.includes("Worker up")`)
}

// Any reservation is shown with its journal, settled ones too: from the list, by its id, and by a link.
func TestBrowserReservations(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve("--ui-url", temporalUI).Ready()
	c := newClient(t, server)
	ctx := context.Background()
	_, err := c.CreateBudget(ctx, limited("acme", 100_000))
	require.NoError(t, err)
	const many = 25 // more than a page
	ids := make([]string, many)
	for i := range many {
		r, err := c.Reserve(ctx, fmt.Sprintf("r-%d", i), earmark.ReservationRequest{
			Scopes: []string{fmt.Sprintf("acme/u%d", i)}, Amounts: earmark.Amounts{"tokens": 100}, Metadata: earmark.Metadata{"note": "<b>bold</b>"},
		})
		require.NoError(t, err)
		ids[i] = r.ID
	}
	_, err = c.Commit(ctx, ids[0], earmark.Amounts{"tokens": 70})
	require.NoError(t, err)

	v := open(t, server.URL)
	rows := func() []string {
		return ask[[]string](v, `[...document.querySelectorAll(".reservations tbody tr")].map((r) => r.cells[2].innerText)`)
	}
	v.await(`document.querySelectorAll(".reservations tbody tr").length === 20`)
	require.Equal(t, "acme/u24", rows()[0], "newest first")
	v.run(chromedp.Focus(".turn button:last-child"))
	v.press(kb.Enter)
	v.await(`document.querySelectorAll(".reservations tbody tr").length === 5`)
	require.Equal(t, "acme/u0", rows()[4])
	v.run(chromedp.Evaluate(`document.querySelector("#state").value = "committed"; document.querySelector("#state").dispatchEvent(new Event("input"))`, nil))
	v.await(`document.querySelectorAll(".reservations tbody tr").length === 1`)
	require.Contains(t, v.text(".reservations tbody"), "70 tokens of 100 tokens")

	v.run(chromedp.Focus(".reservations tbody a"))
	v.press(kb.Enter)
	v.await(`document.querySelector("#one h3").innerText === "Committed: 70 tokens of 100 tokens"`)
	require.Equal(t, [][]string{{"reserve", "+100", ""}, {"commit", "-100", "+70"}},
		ask[[][]string](v, `[...document.querySelectorAll(".journal tbody tr")].map((r) => [1, 2, 3].map((i) => r.cells[i].innerText))`))
	require.Contains(t, v.text("#one dl"), "note: <b>bold</b>")
	require.Contains(t, v.text("#one dl"), ids[0])
	require.True(t, ask[bool](v, `document.querySelector("#one a[href^='`+temporalUI+`/']") !== null`))
	v.content()
	v.run(chromedp.Focus("#one button"))
	v.press(kb.Enter)
	v.await(`document.querySelector("#one").hidden && location.hash === ""`)

	// By its id, and by the beginning of it.
	v.run(chromedp.Evaluate(`document.querySelector("#state").value = ""`, nil), chromedp.Focus("#sought"))
	v.press(ids[7][:12] + kb.Enter)
	v.await(`document.querySelector(".reservations tbody").innerText.includes("acme/u7")`)
	v.run(chromedp.Evaluate(`document.querySelector("#sought").value = ""`, nil), chromedp.Focus("#sought"))
	v.press(ids[8] + kb.Enter)
	v.await(`document.querySelector("#one h3").innerText === "Held: 100 tokens"`)
	require.Contains(t, v.text("#one dl"), "acme/u8")

	// A link that somebody sent, and one to nothing.
	linked := open(t, server.URL+"/#"+ids[3])
	linked.await(`document.querySelector("#one dl").innerText.includes("acme/u3")`)
	linked.content()
	lost := open(t, server.URL+"/#"+earmark.ReservationID(earmark.DefaultTenant, "never made"))
	lost.await(`document.querySelector("#one h3").innerText.startsWith("There is no reservation rsv_")`)
}

func TestBrowserHiddenTabRests(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve().Ready()
	v := open(t, server.URL)
	v.await(`document.querySelector("#budgets-count").innerText === "0"`)
	const asked = `performance.getEntriesByType("resource").filter((e) => e.initiatorType === "fetch").length`
	hide := func(hidden bool) {
		v.run(chromedp.Evaluate(fmt.Sprintf(`Object.defineProperty(document, "hidden", { value: %t, configurable: true }); document.dispatchEvent(new Event("visibilitychange"))`, hidden), nil))
	}
	hide(true)
	time.Sleep(time.Second) //nolint:forbidigo // what was asked already is answered
	before := ask[int](v, asked)
	time.Sleep(7 * time.Second) //nolint:forbidigo // nothing may happen for longer than the time between two refreshes
	require.Equal(t, before, ask[int](v, asked))
	hide(false)
	v.await(fmt.Sprintf("%s > %d", asked, before))
	v.content()
}

func TestBrowserWithoutScript(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve().Ready()
	v := open(t, server.URL, emulation.SetScriptExecutionDisabled(true))
	var shown string
	v.run(chromedp.Text("body", &shown, chromedp.ByQuery))
	require.Contains(t, shown, "This page needs JavaScript.")
	require.NotContains(t, shown, "Loading")
}
