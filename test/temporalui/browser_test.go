//go:build browser && unix

package temporalui

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
)

const (
	browserLimit = 2 * time.Minute
	startLimit   = time.Minute
)

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }

// startDev runs `earmark dev`, which has the UI inside.
func startDev(t *testing.T) *client.Client {
	t.Helper()
	ports := stack.FreePorts(t, 4)
	dir, err := os.MkdirTemp("", "earmark-ui-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755)) // Postgres may run as another user
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	env := append(os.Environ(), "PATH="+filepath.Join(root, "bin")+":"+os.Getenv("PATH"))
	process := stack.NewProcess(t, "dev", env, stack.Binary(t), "dev", "--data-dir", filepath.Join(dir, "data"), "--addr", fmt.Sprint("127.0.0.1:", ports[0]),
		"--temporal-port", strconv.Itoa(ports[1]), "--ui-port", strconv.Itoa(ports[2]), "--postgres-port", strconv.Itoa(ports[3]))
	process.Start()
	url := fmt.Sprint("http://127.0.0.1:", ports[0])
	stack.Eventually(t, startLimit, "earmark dev", func() bool {
		response, err := http.Get(url + "/readyz")
		if err != nil {
			return false
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode == http.StatusOK
	})
	earmarks, err := client.New(url)
	require.NoError(t, err)
	return earmarks
}

// shown is what Temporal UI shows of a workflow under User Metadata: the texts of
// its frames, and how many elements in them the texts have made.
type shown struct {
	Texts   []string `json:"texts"`
	Strange int      `json:"strange"` // scripts, images and links, none of which is ours
}

// readMetadata waits until each of three texts is in its frame: the page draws them in
// steps. After a minute it returns what is there.
const readMetadata = `(async (wants) => {
  const wait = async (find) => { for (;;) { const found = find(); if (found) return found; await new Promise((again) => setTimeout(again, 100)); } };
  (await wait(() => [...document.querySelectorAll("a")].find((a) => a.innerText.includes("User Metadata")))).click();
  const text = (frame) => frame.contentDocument?.body?.innerText ?? "";
  const late = Date.now() + 60_000;
  const frames = await wait(() => {
    const all = [...document.querySelectorAll("iframe")];
    return (wants.every((want, i) => all[i] && text(all[i]).includes(want)) || Date.now() > late) && all;
  });
  const strange = frames.map((f) => f.contentDocument.querySelectorAll("body script, body img, body a, body b:not(strong)").length);
  return {texts: frames.map(text), strange: strange.reduce((a, b) => a + b, 0)};
})(%s)`

// look opens the workflow, and waits for a text in each of the frames of the summary, the
// details and the current details.
func look(t *testing.T, url string, wants [3]string) (got shown) {
	t.Helper()
	inFrames, err := json.Marshal(wants)
	require.NoError(t, err)
	chromium, err := findChromium()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), browserLimit)
	defer cancel()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.WindowSize(1400, 1200))
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	await := func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(url), chromedp.Evaluate(fmt.Sprintf(readMetadata, inFrames), &got, await)))
	if dir := os.Getenv("SCREENSHOTS"); dir != "" {
		var picture []byte
		require.NoError(t, chromedp.Run(ctx, chromedp.Sleep(time.Second), chromedp.CaptureScreenshot(&picture)))
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("temporal-ui-%d.png", time.Now().UnixMilli())), picture, 0o600))
	}
	return got
}

// An operator who opens the workflow sees what was asked for, where it stands, and
// what to do; what the caller wrote is text and nothing else.
func TestBrowserShowsAReservationInTemporalUI(t *testing.T) {
	earmarks := startDev(t)
	limit := int64(10_000)
	_, err := earmarks.CreateBudget(t.Context(), earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit})
	require.NoError(t, err)
	const note = "<b>large</b> <script>alert(1)</script> | [x](http://evil.test) ![y](http://evil.test/z.png) `code` *bold*"
	hold := func(ttlSeconds int64, onExpiry earmark.OnExpiry) *earmark.Reservation {
		r, err := earmarks.Reserve(t.Context(), "", earmark.ReservationRequest{
			Scopes: []string{"acme/ml/u1"}, Amounts: earmark.Amounts{"tokens": 1200}, TTLSeconds: ttlSeconds, OnExpiry: onExpiry, Metadata: earmark.Metadata{"note": note},
		})
		require.NoError(t, err)
		return r
	}
	held, review := hold(3600, earmark.OnExpiryRelease), hold(1, earmark.OnExpiryReview)
	stack.Eventually(t, startLimit, "the review", func() bool {
		r, err := earmarks.Reservation(t.Context(), review.ID)
		require.NoError(t, err)
		return r.State == earmark.StateReview
	})

	const size = "acme/ml/u1 · 1,200 tokens"
	got := look(t, held.UIURL, [3]string{size, "note=" + note, "Nothing has to be done"})
	require.Len(t, got.Texts, 3)
	summary, details, current := got.Texts[0], got.Texts[1], got.Texts[2]
	require.Contains(t, summary, size)
	require.Contains(t, details, "earmark show "+held.ID)
	require.Contains(t, details, "note="+note)
	require.Zero(t, got.Strange, "%q", got.Texts)
	require.Contains(t, current, "Nothing has to be done")
	require.Contains(t, current, held.ExpiresAt.UTC().Format("2006-01-02 15:04"))

	decide := "earmark commit " + review.ID + " tokens=<used> --reason <why>"
	got = look(t, review.UIURL, [3]string{size, "note=" + note, decide})
	require.Len(t, got.Texts, 3)
	require.Contains(t, got.Texts[2], "In review: waits for a decision")
	require.Contains(t, got.Texts[2], decide)
}

func findChromium() (string, error) {
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			return found, nil
		}
	}
	return "", errors.New("there is no Chromium; install it (Debian: apt install chromium) or say where it is in CHROMIUM")
}
