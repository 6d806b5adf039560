//go:build browser && unix

package statuspage_test

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
)

// signIn types a key into the form and sends it.
func (v *visit) signIn(key string) {
	v.t.Helper()
	v.await(`location.pathname === "/sign-in" && document.activeElement?.name === "key"`)
	v.run(chromedp.SendKeys(`input[name=key]`, key+kb.Enter))
}

// The status page asks for a key. What it then shows depends on the key's role, and it asks again once the key
// has stopped working.
func TestBrowserSignIn(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Keys: true})
	server := s.Serve("--ui-url", temporalUI).Ready()
	key := func(role earmark.Role) string {
		return strings.TrimSpace(s.MustRun("key", "create", "--role", string(role), "--name", "browser", "--reason", "test"))
	}
	admin, read, operate := key(earmark.RoleAdmin), key(earmark.RoleRead), key(earmark.RoleOperate)
	api, err := client.New(server.URL, client.WithAPIKey(admin))
	require.NoError(t, err)
	_, err = api.CreateBudget(t.Context(), limited("acme", 1_000))
	require.NoError(t, err)
	held, err := api.Reserve(t.Context(), "stuck-1", earmark.ReservationRequest{Scopes: []string{"acme"}, Amounts: earmark.Amounts{"tokens": 5}, TTLSeconds: 1, OnExpiry: earmark.OnExpiryReview})
	require.NoError(t, err)
	stack.Eventually(t, moment, "the review", func() bool {
		r, err := api.Reservation(t.Context(), held.ID)
		return err == nil && r.State == earmark.StateReview
	})

	v := open(t, server.URL)
	for _, wrong := range []string{"sesame", read[:len(read)-1] + "!", strings.Replace(read, "emk_", "emk_x", 1)} {
		v.signIn(wrong)
		v.await(`document.querySelector("[role=alert]")?.innerText.startsWith("The key is ")`)
		require.Empty(t, ask[string](v, `document.querySelector("input[name=key]").value`))
		require.NotContains(t, ask[string](v, `document.documentElement.outerHTML + location`), wrong)
	}

	v.signIn(read)
	v.await(`document.querySelector("#budgets tbody .scope")?.innerText === "acme"`)
	v.await(`document.querySelector("#stuck .lead").innerText.startsWith("Not shown to this key. The server says: this needs a key with the role operate")`)
	require.Equal(t, "–", v.text("#stuck-count"))
	require.Empty(t, v.text("#trouble"), "a role that suffices for the rest is no trouble")
	require.False(t, ask[bool](v, `document.querySelector("#stuck").hasAttribute("data-old")`))
	require.NotContains(t, v.text("main"), "earmark release", "a key that only reads is offered no remedy")

	v.run(chromedp.Navigate(server.URL + "/sign-in"))
	require.Contains(t, v.text("main"), "role read")
	v.run(chromedp.Click(`form[action=sign-out] button`))
	v.signIn(operate)
	v.await(`document.querySelector("#stuck-count")?.innerText === "1"`)
	v.await(`document.querySelector("#stuck").innerText.includes("earmark release ` + held.ID + `")`)

	s.MustRun("key", "revoke", strings.Split(operate, "_")[1], "--reason", "test")
	v.await(`location.pathname === "/sign-in"`)
}
