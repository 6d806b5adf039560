//go:build browser

package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// browserTimeout bounds one load of the page, which takes two seconds or so.
const browserTimeout = time.Minute

// docsHost is a name that only the proxy of the test knows.
const docsHost = "earmark.test"

// named makes the server answer to that name, as --allowed-hosts does.
func named(options *Options) { options.Hosts = []string{docsHost} }

// pagePolicy goes with the policy of the page, whatever that allows: a call of
// another host is reported. What the proxy is asked for does not tell, for Chromium
// calls its makers by itself.
const pagePolicy = "default-src 'self' data:; report-uri " + violationPath

const violationPath = "/violation"

// browserProxy is all the Internet that the browser gets: docsHost answers, and
// nobody else does.
type browserProxy struct {
	handler http.Handler
	script  string // appended to docs.js

	mu         sync.Mutex
	violations []string
}

func (p *browserProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case r.Host != docsHost:
		http.Error(w, "no such host", http.StatusBadGateway)
	case r.URL.Path == violationPath:
		report, _ := io.ReadAll(r.Body)
		p.violations = append(p.violations, string(report))
	default:
		p.answer(w, r)
	}
}

// answer is that of the API, with reports of what its policy forbids and with the
// test's script.
func (p *browserProxy) answer(w http.ResponseWriter, r *http.Request) {
	r.Header.Del("Accept-Encoding") // the script is appended to what is not compressed
	recorder := httptest.NewRecorder()
	p.handler.ServeHTTP(recorder, r)
	for name, values := range recorder.Header() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Security-Policy", recorder.Header().Get("Content-Security-Policy")+"; report-uri "+violationPath)
	w.Header().Add("Content-Security-Policy", pagePolicy)
	body := recorder.Body.String()
	if r.URL.Path == "/docs/docs.js" {
		body += p.script
		w.Header().Del("Content-Length")
	}
	w.WriteHeader(recorder.Code)
	_, _ = w.Write([]byte(body))
}

// browse gives the page as Chromium has it after everything was loaded and script ran.
func browse(t *testing.T, handler http.Handler, script string, flags ...string) string {
	t.Helper()
	chromium, err := findChromium()
	require.NoError(t, err)
	proxy := &browserProxy{handler: handler, script: script}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)

	ctx, cancel := context.WithTimeout(context.Background(), browserTimeout)
	defer cancel()
	var problems strings.Builder
	cmd := exec.CommandContext(ctx, chromium, append(flags,
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir="+t.TempDir(), "--proxy-server="+server.URL, "--proxy-bypass-list=<-loopback>",
		"--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", "http://"+docsHost+"/docs")...)
	cmd.Stderr = &problems
	page, err := cmd.Output()
	require.NoError(t, err, "%s", problems.String())

	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	require.Empty(t, proxy.violations, "the page breaks its policy, or calls another host")
	for line := range strings.Lines(problems.String()) {
		if !strings.Contains(line, "source: chrome://") { // a page of the browser's own
			require.NotContains(t, line, "CONSOLE", "the page complains")
		}
	}
	return string(page)
}

func findChromium() (string, error) {
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			return found, nil
		}
	}
	return "", errors.New("there is no Chromium; install it (Debian: apt install chromium) or say where it is in CHROMIUM")
}

func TestBrowserShowsEveryCall(t *testing.T) {
	t.Parallel()
	for _, scheme := range []struct{ flag, root string }{
		{"--blink-settings=preferredColorScheme=1", `<html lang="en">`},
		{"--blink-settings=preferredColorScheme=0", `<html lang="en" class="dark-mode">`},
	} {
		page := browse(t, setup(t, &fake{}, named).handler, "", scheme.flag)
		requireShown(t, page, scheme.root)
		for target, item := range loadDocument(t).Paths.Map() {
			requireShown(t, page, `data-path="`+target+`"`)
			for _, operation := range item.Operations() {
				requireShown(t, page, `id="operations-`+operation.Tags[0]+`-`+operation.OperationID+`"`)
			}
		}
		requireShown(t, page, "http://"+docsHost+"</code>, for real")
	}
}

// requireShown does not print the page, which is long.
func requireShown(t *testing.T, page, part string) {
	t.Helper()
	require.True(t, strings.Contains(page, part), "the page has no %s", part) //nolint:testifylint // see above
}

// createBudget does what a person does who tries the first call out.
const createBudget = `
(async () => {
  const find = async (selector) => {
    for (;;) {
      const found = document.querySelector("#operations-budgets-createBudget " + selector);
      if (found) return found;
      await new Promise((again) => setTimeout(again, 50));
    }
  };
  (await find(".opblock-summary-control")).click();
  (await find(".try-out__btn")).click();
  (await find(".execute")).click();
  await find(".live-responses-table .response");
})();
`

func TestBrowserTriesACallOut(t *testing.T) {
	t.Parallel()
	f := &fake{budget: testBudget()}
	page := browse(t, setup(t, f, named).handler, createBudget)
	require.Equal(t, []string{"CreateBudget"}, f.names())
	require.Equal(t, "acme/ml", f.last().(earmark.BudgetRequest).Scope, "the example of the document")
	requireShown(t, page, testBudgetID)
}
