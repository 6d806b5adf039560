package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ctxtime"
	"github.com/earmark-dev/earmark/internal/devstack"
	"github.com/earmark-dev/earmark/internal/fakeprovider"
	"github.com/earmark-dev/earmark/internal/gateway"
)

const (
	gatewayListens    = "The gateway listens."
	plainProxyListens = "The plain proxy listens."
	streamsAtOnce     = 1000
	quickStreams      = 50
	mebibyte          = 1 << 20
	chatStream        = `{"model":"m","max_tokens":20,"stream":true}`
	maxOutput         = 20
	keyPlain          = "plain"
	keyGuarded        = "guarded"
	keyAdmission      = "admission"
	gatewayFiguresKey = "gateway."
)

// gateway measures how long a caller waits for the first byte of a stream: through a plain
// reverse proxy and through earmark gateway, each in a process of its own, beside an admission
// alone: one call of each in turn. The calls are so far apart that the settlement of one does
// not overlap the next.
func (r *run) gateway(ctx context.Context) error {
	main, err := r.serving(ctx, mainName)
	if err != nil {
		return err
	}
	provider := &fakeprovider.Provider{}
	upstream, stop := provider.Serve()
	defer stop()
	plain, err := startPlainProxy(ctx, main, upstream)
	if err != nil {
		return err
	}
	defer plain.stop(ctx)
	guard, err := startGateway(ctx, main, upstream)
	if err != nil {
		return err
	}
	defer guard.stop(ctx)

	f := &r.report.figures
	ways := []*way{
		newStreams(keyPlain, "a plain reverse proxy", plain.url).way(),
		newStreams(keyGuarded, "earmark gateway", guard.url).way(),
		{key: keyAdmission, title: "an admission by its estimate", on: main, admit: main.reserveEstimate, settle: main.commit},
	}
	for _, w := range ways {
		if _, err := r.closed(ctx, w, 1, min(warmUp, r.Duration)); err != nil {
			return fmt.Errorf("warming up: %w", err)
		}
	}
	for round := range r.Rounds {
		r.say("  round %d of %d", round+1, r.Rounds)
		latencies, err := inTurns(ctx, ways, normalPerSecond, int(max(1, normalPerSecond*r.Duration.Seconds())))
		if err != nil {
			return err
		}
		beyond := make([]time.Duration, len(latencies[0]))
		for turn := range beyond {
			beyond[turn] = latencies[1][turn] - latencies[0][turn] - latencies[2][turn]
		}
		for i, w := range ways {
			slices.Sort(latencies[i])
			keepLatency(f, gatewayFiguresKey+w.key, &block{admission: latencies[i]})
		}
		slices.Sort(beyond)
		f.add("gateway.beyond_ms", "ms", quantileMS(beyond, 0.50))
	}
	table := Table{Title: fmt.Sprintf("The gateway: the first byte of a stream, %d calls a second", normalPerSecond), Columns: []string{"way", "p50, ms", "p99, ms"}}
	for _, w := range ways {
		table.row(w.title, f.text(gatewayFiguresKey+w.key+".p50_ms"), f.text(gatewayFiguresKey+w.key+".p99_ms"))
	}
	table.row("what the gateway takes beyond both", f.text("gateway.beyond_ms"), "")
	if err := r.streamsAtOnce(ctx, provider, guard); err != nil {
		return err
	}
	table.Notes = []string{fmt.Sprintf("%s streams at once: all had their first byte after %s s, %s failed, and the gateway had %s MiB of memory.",
		f.short("gateway.streams"), f.short("gateway.streams_open_s"), f.short("gateway.streams_failed"), f.short("gateway.memory_mib"))}
	r.report.Tables = append(r.report.Tables, table)
	return nil
}

// inTurns makes one call after the other, each turn one of each way in another order, so that
// what else the machine does meets all ways alike. It returns the latencies of each way.
func inTurns(ctx context.Context, ways []*way, perSecond float64, turns int) ([][]time.Duration, error) {
	latencies := make([][]time.Duration, len(ways))
	order := rand.New(rand.NewPCG(orderSeed, 0)) //nolint:gosec // no secret
	due := time.Now()
	for range turns {
		for _, i := range order.Perm(len(ways)) {
			if !ctxtime.Sleep(ctx, time.Until(due)) {
				return nil, ctx.Err()
			}
			due = time.Now().Add(time.Duration(float64(time.Second) / perSecond))
			_, latency, _, err := ways[i].lifecycle(ctx, time.Now())
			if err != nil {
				return nil, fmt.Errorf("%s: %w", ways[i].title, err)
			}
			latencies[i] = append(latencies[i], latency)
		}
	}
	return latencies, nil
}

// reserveEstimate is the admission that the gateway makes of a call.
func (d *deployment) reserveEstimate(ctx context.Context, n int64) (id string, err error) {
	output := int64(maxOutput)
	r, err := d.api.Reserve(ctx, "", earmark.ReservationRequest{Scopes: []string{scopeOf(n)}, OnExpiry: earmark.OnExpiryCommit,
		Estimate: &earmark.Estimate{Model: "m", InputTokens: int64(len(chatStream)), MaxOutputTokens: &output}})
	if err != nil {
		return "", err
	}
	return r.ID, nil
}

// streamsAtOnce holds many streams open after their first event, and then ends them.
func (r *run) streamsAtOnce(ctx context.Context, provider *fakeprovider.Provider, guard *proxyProcess) error {
	n := streamsAtOnce
	if r.Quick {
		n = quickStreams
	}
	r.say("  %d streams at once", n)
	var mu sync.Mutex
	var gates []chan struct{}
	provider.Behave = func(fakeprovider.Call) fakeprovider.Behaviour {
		mu.Lock()
		defer mu.Unlock()
		gate := make(chan struct{}, 1)
		gate <- struct{}{} // the first event
		gates = append(gates, gate)
		return fakeprovider.Behaviour{Gate: gate}
	}
	defer func() { provider.Behave = nil }()
	through := newStreams(keyGuarded, "", guard.url)
	errs := make([]error, n)
	ids := make([]string, n)
	each := func(atOnce int, do func(i int)) {
		var group errgroup.Group
		group.SetLimit(atOnce)
		for i := range n {
			group.Go(func() error { do(i); return nil })
		}
		_ = group.Wait() // no call returns an error
	}
	begun := time.Now()
	each(saturatingClients, func(i int) { ids[i], errs[i] = through.open(ctx, serials.Add(1)) })
	f := &r.report.figures
	f.add("gateway.streams", "", float64(n))
	f.add("gateway.streams_open_s", "s", time.Since(begun).Seconds())
	f.add("gateway.memory_mib", "MiB", residentBytes(guard.child.PID())/mebibyte)
	mu.Lock()
	for _, gate := range gates {
		close(gate)
	}
	mu.Unlock()
	each(n, func(i int) {
		if errs[i] == nil {
			errs[i] = through.end(ctx, ids[i])
		}
	})
	failures := slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(failures) > 0 {
		r.report.note("%d of %d streams failed, such as: %v", len(failures), n, failures[0])
	}
	f.add("gateway.streams_failed", "", float64(len(failures)))
	return nil
}

// streams are calls of a model through a proxy.
type streams struct {
	key, title, url string
	http            *http.Client
	answers         sync.Map // io.ReadCloser by id
}

func newStreams(key, title, url string) *streams {
	return &streams{key: key, title: title, url: url,
		http: &http.Client{Transport: &http.Transport{MaxIdleConns: maxIdleConns, MaxIdleConnsPerHost: maxIdleConns}}}
}

func (s *streams) way() *way {
	return &way{key: s.key, title: s.title, admit: s.open, settle: s.end}
}

// open returns with the first byte of the answer.
func (s *streams) open(ctx context.Context, n int64) (id string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v1/chat/completions", strings.NewReader(chatStream))
	if err != nil {
		return "", err
	}
	request.Header.Set(gateway.ScopeHeader, scopeOf(n))
	response, err := s.http.Do(request)
	if err != nil {
		return "", err
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(response.Body, first); err != nil || response.StatusCode != http.StatusOK {
		rest, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		return "", errors.Join(fmt.Errorf("%s: %s%s", response.Status, first, rest), err)
	}
	id = strconv.FormatInt(n, 10)
	s.answers.Store(id, response.Body)
	return id, nil
}

// end reads an answer to its end.
func (s *streams) end(_ context.Context, id string) error {
	stored, _ := s.answers.LoadAndDelete(id)
	body, ok := stored.(io.ReadCloser)
	if !ok {
		return fmt.Errorf("there is no stream %s", id)
	}
	defer func() { _ = body.Close() }()
	rest, err := io.ReadAll(body)
	if err == nil && !strings.HasSuffix(string(rest), "data: [DONE]\n\n") {
		err = errors.New("the stream broke")
	}
	return err
}

// PlainProxyFlag is the flag of this program that makes it a plain reverse proxy in front of
// a URL. It takes the place of earmark gateway, and so has to be a process as well.
const PlainProxyFlag = "plain-proxy"

// ServePlainProxy serves the plain reverse proxy until ctx has ended.
func ServePlainProxy(ctx context.Context, upstream string) error {
	target, err := url.Parse(upstream)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(p *httputil.ProxyRequest) { p.SetURL(target) },
		Transport:     &http.Transport{MaxIdleConns: maxIdleConns, MaxIdleConnsPerHost: maxIdleConns},
		FlushInterval: -1,
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Of a body that it passes on while it reads, go1.26.8 may notice the end after the
		// answer has begun, and then it cuts the answer.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	})}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	slog.New(slog.NewJSONHandler(os.Stderr, nil)).InfoContext(ctx, plainProxyListens, "address", listener.Addr().String())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type proxyProcess struct {
	child *devstack.Child
	url   string
}

func (p *proxyProcess) stop(ctx context.Context) { _ = p.child.Stop(context.WithoutCancel(ctx)) }

func startPlainProxy(ctx context.Context, d *deployment, upstream string) (*proxyProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startProxy(ctx, d, plainProxyListens, self, "--"+PlainProxyFlag, upstream)
}

func startGateway(ctx context.Context, d *deployment, upstream string) (*proxyProcess, error) {
	return startProxy(ctx, d, gatewayListens, d.services.options.Program, "gateway", "--upstream", upstream,
		"--url", d.url, "--listen", "127.0.0.1:0", "--on-expiry", "commit", "--drain-timeout", "0s")
}

func startProxy(ctx context.Context, d *deployment, listens, program string, args ...string) (*proxyProcess, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, args...)
	cmd.Env = os.Environ()
	logPath := filepath.Join(d.services.dir, d.name+"-"+strings.Trim(args[0], "-")+".log")
	child, err := devstack.StartChild(program, cmd, logPath)
	if err != nil {
		return nil, err
	}
	p := &proxyProcess{child: child}
	ctx, cancel := whileAlive(ctx, child)
	defer cancel()
	return p, await(ctx, "the proxy", func() error {
		if p.url = listensAt(logPath, listens); p.url == "" {
			return errors.New("it does not listen yet")
		}
		return nil
	})
}
