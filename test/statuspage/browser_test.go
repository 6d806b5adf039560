//go:build browser && unix

// Package statuspage_test looks at the status page in a headless Chromium, on a real
// server with a real Postgres and a real Temporal.
package statuspage_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/stack"
)

// browserLimit bounds a test's whole visit; moment, what should be seen soon: the
// page asks every 5 seconds.
const (
	browserLimit = 4 * time.Minute
	moment       = 45 * time.Second
)

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }

// visit is a tab of a browser that a test looks at. When the test ends, the page must
// not have complained, but for what a test expects.
type visit struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex
	complaints []string
}

// watchPolicy notes what the page's policy forbids, before any script of the page runs.
const watchPolicy = `window.violations = []; addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.blockedURI));`

func open(t *testing.T, url string, before ...chromedp.Action) *visit {
	t.Helper()
	chromium, err := findChromium()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), browserLimit)
	t.Cleanup(cancel)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.WindowSize(1200, 900),
		chromedp.Flag("host-resolver-rules", "MAP "+strangersHost+" 127.0.0.1"))
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	v := &visit{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, v.listen)
	v.run(
		browser.SetPermission(&browser.PermissionDescriptor{Name: "clipboard-read"}, browser.PermissionSettingGranted),
		browser.SetPermission(&browser.PermissionDescriptor{Name: "clipboard-write"}, browser.PermissionSettingGranted),
		chromedp.ActionFunc(func(ctx context.Context) error {
			_, err := page.AddScriptToEvaluateOnNewDocument(watchPolicy).Do(ctx)
			return err
		}))
	v.run(append(before, chromedp.Navigate(url))...)
	return v
}

func (v *visit) listen(event any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		v.complaints = append(v.complaints, e.ExceptionDetails.Error())
	case *runtime.EventConsoleAPICalled:
		v.complaints = append(v.complaints, fmt.Sprintf("console.%s", e.Type))
	case *log.EventEntryAdded:
		v.complaints = append(v.complaints, e.Entry.Text)
	}
}

// content requires that nothing was wrong with the page up to now.
func (v *visit) content() {
	v.t.Helper()
	require.Empty(v.t, ask[[]string](v, "violations"), "the page breaks its policy")
	v.mu.Lock()
	defer v.mu.Unlock()
	require.Empty(v.t, v.complaints, "the page complains")
}

// forgive forgets the complaints about a server that was away.
func (v *visit) forgive() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.complaints = nil
}

func (v *visit) run(actions ...chromedp.Action) {
	v.t.Helper()
	require.NoError(v.t, chromedp.Run(v.ctx, actions...))
}

// press types keys, as chromedp names them.
func (v *visit) press(keys string) {
	v.t.Helper()
	v.run(chromedp.KeyEvent(keys))
}

// ask evaluates an expression in the page, and waits where it is a promise.
func ask[T any](v *visit, expression string) T {
	v.t.Helper()
	var value T
	v.run(chromedp.Evaluate(expression, &value, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return value
}

// text is what is to be read at a selector, and empty where that is hidden.
func (v *visit) text(selector string) string {
	v.t.Helper()
	return ask[string](v, fmt.Sprintf("((node) => (node?.checkVisibility() ? node.innerText : ''))(document.querySelector(%q))", selector))
}

// await polls until an expression is true in the page.
func (v *visit) await(expression string) {
	v.t.Helper()
	deadline := time.Now().Add(moment)
	for !ask[bool](v, "Boolean("+expression+")") { // what is not there yet is undefined
		if time.Now().After(deadline) {
			require.FailNow(v.t, "waited in vain", "%s\nthe page says:\n%s", expression, v.text("body"))
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // polls
	}
}

func findChromium() (string, error) {
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			return found, nil
		}
	}
	return "", errors.New("there is no Chromium; install it (Debian: apt install chromium) or say where it is in CHROMIUM")
}
