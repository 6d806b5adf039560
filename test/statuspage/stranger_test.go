//go:build browser && unix

package statuspage_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
)

// strangersHost is a name that its owner points at this machine, once a browser has loaded a page from it.
const strangersHost = "evil.example"

// attack is what the script of a stranger's page can try against a server on the visitor's machine. It returns all that
// it could read.
const attack = `(async (target, id) => {
	const read = [];
	const attempt = async (what, f) => {
		try {
			read.push(what + ": " + await f());
		} catch (error) {
			read.push(what + " failed");
		}
	};
	const release = target + "/v1/reservations/" + id + "/release";
	const paths = ["/", "/v1/budgets", "/v1/reservations/" + id, "/v1/entries", "/v1/overview", "/healthz", "/readyz", "/metrics", "/openapi.yaml"];
	for (const mode of ["no-cors", "cors"]) {
		for (const path of paths) await attempt(mode + " GET " + path.replace(id, "ID"), async () => (await fetch(target + path, { mode, credentials: "include" })).text());
		await attempt(mode + " POST release", async () => (await fetch(release, { method: "POST", mode })).text());
		for (const [type, body] of [["text/plain", "{}"], ["application/x-www-form-urlencoded", ""], ["application/json", "{}"]]) {
			await attempt(mode + " POST " + type, async () => (await fetch(release, { method: "POST", mode, headers: { "Content-Type": type }, body })).text());
			await attempt(mode + " POST budgets " + type, async () => (await fetch(target + "/v1/budgets", { method: "POST", mode, headers: { "Content-Type": type },
				body: JSON.stringify({ scope: "stolen", unit: "tokens", limit: 1 }) })).text());
		}
	}
	navigator.sendBeacon(release);
	for (const [tag, address] of [["script", "/v1/budgets"], ["img", "/v1/budgets"], ["link", "/v1/budgets"]]) {
		await attempt(tag, () => new Promise((done, failed) => {
			const node = document.createElement(tag);
			node.onload = () => done("loaded");
			node.onerror = failed;
			if (tag === "link") node.rel = "stylesheet";
			node[tag === "link" ? "href" : "src"] = target + address;
			document.body.append(node);
		}));
	}
	const frame = document.createElement("iframe");
	frame.name = "result";
	document.body.append(frame);
	for (const enctype of ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"]) {
		const form = document.createElement("form");
		Object.assign(form, { action: release, method: "post", target: "result", enctype });
		document.body.append(form);
		const answered = new Promise((done) => { frame.onload = done; });
		form.submit();
		await answered;
		await attempt("form " + enctype, () => frame.contentDocument.body.innerText);
	}
	const shown = new Promise((done) => { frame.onload = done; });
	frame.src = target + "/";
	await shown;
	await attempt("frame", () => frame.contentDocument.body.innerText);
	return read;
})(%q, %q)`

// A page of another site that somebody has open can neither read nor change anything, whatever name or port it comes
// from, and also when its own name is pointed at the server.
func TestBrowserStrangersPage(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve().Ready()
	c := newClient(t, server)
	_, err := c.CreateBudget(t.Context(), limited("secret", 1000))
	require.NoError(t, err)
	held, err := c.Reserve(t.Context(), "held", earmark.ReservationRequest{Scopes: []string{"secret/u1"}, Amounts: earmark.Amounts{"tokens": 70}, TTLSeconds: 3600})
	require.NoError(t, err)
	before := journalOf(t, c)

	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>A free game</title><body>"))
	}))
	t.Cleanup(site.Close)
	sitePort, serverPort := portOf(t, site.URL), portOf(t, server.URL)
	for _, attempt := range []struct{ name, from, against string }{
		{"another port of the address", site.URL, server.URL},
		{"a name of this machine", "http://evil.localhost:" + sitePort, server.URL},
		{"the same site to the browser", "http://evil.localhost:" + sitePort, "http://localhost:" + serverPort},
		{"another site", "http://" + strangersHost + ":" + sitePort, server.URL},
		{"its own name on our port", "http://" + strangersHost + ":" + sitePort, "http://" + strangersHost + ":" + serverPort},
		{"its own name rebound, the same origin to the browser", "http://" + strangersHost + ":" + serverPort, ""},
	} {
		t.Run(attempt.name, func(t *testing.T) {
			v := open(t, attempt.from)
			read := ask[[]string](v, fmt.Sprintf(attack, attempt.against, held.ID))
			require.Greater(t, len(read), 30)
			for _, text := range read {
				require.NotContains(t, text, held.ID)
				require.NotContains(t, text, "secret")
				require.NotContains(t, text, "earmark_")
				require.NotContains(t, text, `"status":"ready"`)
			}
		})
	}
	now, err := c.Reservation(context.Background(), held.ID)
	require.NoError(t, err)
	require.Equal(t, earmark.StateHeld, now.State)
	require.Equal(t, before, journalOf(t, c), "nothing was written")
	budgets, err := c.Budgets(context.Background(), earmark.BudgetFilter{})
	require.NoError(t, err)
	require.Len(t, budgets.Data, 1)
	require.Equal(t, held.ExpiresAt, now.ExpiresAt)
}

func journalOf(t *testing.T, c *client.Client) []earmark.Entry {
	t.Helper()
	page, err := c.Entries(context.Background(), earmark.EntryFilter{})
	require.NoError(t, err)
	return page.Data
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	parsed, err := url.Parse(address)
	require.NoError(t, err)
	return parsed.Port()
}
