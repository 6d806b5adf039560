package api

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/keys"
)

// signIn sends the form.
func (b *env) signIn(key string, header ...string) *http.Response {
	request := httptest.NewRequest(http.MethodPost, localURL+"/sign-in", strings.NewReader(url.Values{"key": {key}}.Encode()))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	recorder := httptest.NewRecorder()
	b.handler.ServeHTTP(recorder, request)
	return recorder.Result()
}

// cookieOf is what the browser sends back.
func cookieOf(response *http.Response) []string {
	cookie := response.Cookies()[0]
	return []string{"Cookie", cookie.Name + "=" + cookie.Value}
}

// A browser that signs in calls with its key, as far as the key's role goes, and until it signs out or the key
// does not work any more. The cookie has nothing of the key's secret.
func TestSignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := playingAlong()
		b := setup(t, f, withKeys)
		key := f.addKey(otherTenant, earmark.RoleRead)
		signedIn := b.signIn(" " + key.Text() + "\n")
		require.Equal(t, http.StatusSeeOther, signedIn.StatusCode)
		require.Equal(t, ".", signedIn.Header.Get("Location"))
		cookie := signedIn.Cookies()[0]
		require.True(t, cookie.HttpOnly)
		require.Equal(t, http.SameSiteStrictMode, cookie.SameSite)
		require.False(t, cookie.Secure)
		require.NotContains(t, signedIn.Header.Get("Set-Cookie"), key.Text()[17:40])
		require.NotContains(t, b.log.String(), key.Text())

		browser := cookieOf(signedIn)
		x := b.do("GET", "/v1/whoami", "", browser...).status(http.StatusOK)
		require.Equal(t, key.ID, decoded[earmark.Caller](x).KeyID)
		b.do("POST", settlePath("adopt"), "", browser...).problem(http.StatusForbidden, earmark.CodeForbidden)
		require.Contains(t, string(b.send("GET", "/sign-in", "", browser...).status(http.StatusOK).body), key.ID)
		cross := b.send("POST", settlePath("commit"), `{"usage":{"tokens":1}}`, append(browser, "Sec-Fetch-Site", "cross-site")...)
		cross.problem(http.StatusForbidden, earmark.CodeForbidden)
		b.do("GET", "/v1/whoami", "", append(browser, "Authorization", "Bearer emk_")...).status(http.StatusUnauthorized)

		now := time.Now()
		f.mu.Lock()
		f.credentials[key.ID].Key.RevokedAt = &now
		f.mu.Unlock()
		time.Sleep(credentialFresh) //nolint:forbidigo // fake time
		require.Equal(t, "Authorization: the key is revoked", b.do("GET", "/v1/whoami", "", browser...).problem(http.StatusUnauthorized, earmark.CodeUnauthenticated).Detail)
		synctest.Wait()
	})
}

// A sign-out ends the sign-in on the server, also for a copy of the cookie. While it is not certain, the browser keeps the
// cookie and may repeat it.
func TestSignOut(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	b := setup(t, f, withKeys)
	browser := cookieOf(b.signIn(f.addKey(otherTenant, earmark.RoleRead).Text()))
	b.do("GET", "/v1/whoami", "", browser...).status(http.StatusOK)

	f.signInErr = earmark.Errorf(earmark.CodeUnavailable, "Postgres is away")
	failed := b.send("POST", "/sign-out", "", browser...)
	failed.problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.Empty(t, failed.resp.Cookies())
	b.do("GET", "/v1/whoami", "", browser...).status(http.StatusOK)

	f.signInErr = nil
	out := b.send("POST", "/sign-out", "", browser...).status(http.StatusSeeOther)
	require.Negative(t, out.resp.Cookies()[0].MaxAge)
	b.do("GET", "/v1/whoami", "", browser...).problem(http.StatusUnauthorized, earmark.CodeUnauthenticated)
	for _, gone := range [][]string{browser, {"Cookie", signInCookie + "=x"}, nil} {
		b.send("POST", "/sign-out", "", gone...).status(http.StatusSeeOther)
	}
}

// A sign-in that is not certain sets no cookie.
func TestSignInWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	f.signInErr = earmark.Errorf(earmark.CodeUnavailable, "Postgres is away")
	failed := setup(t, f, withKeys).signIn(f.addKey(otherTenant, earmark.RoleRead).Text())
	require.Equal(t, http.StatusServiceUnavailable, failed.StatusCode)
	require.Empty(t, failed.Cookies())
}

func TestSignInEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := playingAlong()
		b := setup(t, f, withKeys)
		browser := cookieOf(b.signIn(f.addKey(otherTenant, earmark.RoleRead).Text()))
		time.Sleep(signInLasts - time.Second) //nolint:forbidigo // fake time
		b.do("GET", "/v1/whoami", "", browser...).status(http.StatusOK)
		time.Sleep(credentialFresh) //nolint:forbidigo // fake time
		b.do("GET", "/v1/whoami", "", browser...).problem(http.StatusUnauthorized, earmark.CodeUnauthenticated)
		synctest.Wait()
	})
}

// A cookie that no server issued is none, also if it has what Postgres and the caches know.
func TestForgedSignIns(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	b := setup(t, f, withKeys)
	key := f.addKey(otherTenant, earmark.RoleAdmin)
	_, issued, _ := strings.Cut(cookieOf(b.signIn(key.Text()))[1], "=")
	hash := signInToken(issued).hash()
	for _, forged := range []string{
		"", "x", issued + "x", issued[1:], issued + "=", issued + issued, key.ID, base64.RawURLEncoding.EncodeToString(hash[:]),
		signInToken(issued).cacheID(), string(newSignInToken()),
	} {
		b.do("GET", "/v1/whoami", "", "Cookie", signInCookie+"="+forged).problem(http.StatusUnauthorized, earmark.CodeUnauthenticated)
	}
	require.Empty(t, f.names())
	b.do("GET", "/v1/whoami", "", "Cookie", signInCookie+"="+issued).status(http.StatusOK)
}

// What is wrong with a key is said on the page, which does not show the key.
func TestSignInRefusesKeys(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	b := setup(t, f, withKeys)
	unknown := keys.New().Text()
	for key, says := range map[string]string{"": "The key is malformed", "<b>": "The key is malformed", mistype(unknown): "The key is mistyped", unknown: "The key is not known."} {
		refused := b.signIn(key)
		require.Equal(t, http.StatusUnauthorized, refused.StatusCode)
		require.Empty(t, refused.Cookies())
		body := make([]byte, 8<<10)
		n, _ := refused.Body.Read(body)
		require.Contains(t, string(body[:n]), says)
		if key != "" {
			require.NotContains(t, string(body[:n]), key)
		}
	}
	require.Equal(t, http.StatusForbidden, b.signIn(unknown, "Sec-Fetch-Site", "cross-site").StatusCode)
	require.True(t, b.signIn(f.addKey(otherTenant, earmark.RoleRead).Text(), "X-Forwarded-Proto", "https").Cookies()[0].Secure)

	page := setup(t, f).send("GET", "/sign-in", "").status(http.StatusOK)
	require.Contains(t, string(page.body), "asks for no key")
	require.Contains(t, page.resp.Header.Get("Content-Security-Policy"), "form-action 'self'")
}
