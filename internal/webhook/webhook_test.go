package webhook

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// The receiver's library accepts what the sender sends, with the new secret and with the one before it.
func TestDeliveryIsAStandardWebhook(t *testing.T) {
	t.Parallel()
	fresh, former, foreign := NewSecret(), NewSecret(), NewSecret()
	type delivery struct {
		header http.Header
		body   []byte
	}
	got := make(chan delivery, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- delivery{r.Header, body}
	}))
	t.Cleanup(server.Close)
	status, err := NewSender(Allowed{Private: true}).Send(t.Context(), server.URL, Message{ID: "evt_5_1", Body: []byte(`{"type":"budget.exhausted"}`)}, time.Now(), fresh, former)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	d := <-got
	require.Equal(t, "application/json", d.header.Get("Content-Type"))
	for i, secret := range []Secret{fresh, former, foreign} {
		verifier, err := standard.NewWebhook(secret.Reveal())
		require.NoError(t, err)
		require.Equal(t, i < 2, verifier.Verify(d.body, d.header) == nil)
		require.Error(t, verifier.Verify(append(d.body, ' '), d.header))
	}
}

var update = flag.Bool("update", false, "write the delivery in testdata anew")

// The delivery in testdata is one as it is sent. The tests of the other clients check it with the libraries of their languages.
func TestDeliveryOfOtherLanguages(t *testing.T) {
	t.Parallel()
	const path = "testdata/delivery.json"
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	secret, err := ParseSecret("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	require.NoError(t, err)
	message, err := MessageOf(earmark.Event{ID: "evt_5_1", Type: earmark.EventExhausted, CreatedAt: at, Scopes: []string{"acme"}, BudgetID: "bud_7sk2nq4d5aaaaaaaaaaaaaaaaa",
		WindowStart: &at, Data: json.RawMessage(`{"unit":"tokens","limit":100,"available":0,"requested":10}`)})
	require.NoError(t, err)
	text, err := json.MarshalIndent(map[string]any{"secret": secret.Reveal(), "body": string(message.Body), "headers": map[string]string{
		HeaderID: message.ID, HeaderTimestamp: strconv.FormatInt(at.Unix(), 10), HeaderSignature: Signature(message.ID, at, message.Body, secret)}}, "", "  ")
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile(path, append(text, '\n'), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(text)+"\n", "if the change is meant, run: go test ./internal/webhook -run %s -update", t.Name())
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	secret := NewSecret()
	parsed, err := ParseSecret(secret.Reveal())
	require.NoError(t, err)
	require.Equal(t, secret, parsed)
	require.NotContains(t, secret.String(), secret.Reveal()[10:])
	for _, wrong := range []string{"", "whsec_", "whsec_MTIz", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!", "whsec_" + strings.Repeat("QUJD", 30)} {
		_, err := ParseSecret(wrong)
		require.Error(t, err, wrong)
	}
}

func TestURLsOfEndpoints(t *testing.T) {
	t.Parallel()
	for _, right := range []string{"https://example.com/hooks?x=1", "https://example.com:8443", "https://8.8.8.8/x", "https://[2606:4700::1111]/"} {
		require.NoError(t, Allowed{}.ValidateURL("url", right), right)
	}
	for _, wrong := range []string{
		"", "example.com", "http://example.com", "ftp://example.com", "https://", "https://u:p@example.com", "https://example.com/#a", "https://127.0.0.1/", "https://10.1.2.3",
		"https://[::1]/", "https://[::ffff:192.168.0.1]/", "https://169.254.169.254/latest", "https://[fd00::1]/", "https://[64:ff9b::7f00:1]/", "https://0.0.0.0/",
		"https://100.64.1.1/", "https://example.com/" + strings.Repeat("x", maxURLBytes),
	} {
		var refused *earmark.Error
		require.ErrorAs(t, Allowed{}.ValidateURL("url", wrong), &refused, wrong)
		require.Equal(t, "url", refused.Field)
	}
	require.NoError(t, Allowed{Private: true}.ValidateURL("url", "http://127.0.0.1:8080/x"))
	require.ErrorContains(t, Allowed{Private: true}.ValidateURL("url", "ftp://127.0.0.1/x"), "https or http")
	require.True(t, Allowed{}.allows(netip.MustParseAddr("1.1.1.1")))
}

// A name may resolve to another address when it is called than when it was checked: the address of the connection
// counts.
func TestSenderCallsNoPrivateAddress(t *testing.T) {
	t.Parallel()
	called := false
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	for _, host := range []string{"localhost", "127.0.0.1", "[::ffff:127.0.0.1]"} {
		_, err := NewSender(Allowed{}).Send(t.Context(), "https://"+host+":"+port, Message{ID: "m"}, time.Now(), NewSecret())
		require.ErrorIs(t, err, errNotPublic, host)
	}
	require.False(t, called)
}

func TestSenderFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	var called []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		called = append(called, r.URL.Path)
		http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
	}))
	t.Cleanup(server.Close)
	status, err := NewSender(Allowed{Private: true}).Send(t.Context(), server.URL+"/hook", Message{ID: "m"}, time.Now(), NewSecret())
	require.Error(t, err)
	require.Equal(t, http.StatusTemporaryRedirect, status)
	require.Equal(t, []string{"/hook"}, called)
}

func TestSenderGivesUpWithItsCaller(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { close(entered); <-r.Context().Done() }))
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	status, err := NewSender(Allowed{Private: true}).Send(ctx, server.URL, Message{ID: "m"}, time.Now(), NewSecret())
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, status)
}
