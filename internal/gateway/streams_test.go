package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark/internal/fakeprovider"
	"github.com/earmark-dev/earmark/internal/gateway"
)

// Of a thousand streams that are open at the same time each reader gets every byte of its
// own, each charge is what the provider bills, and nothing is left: no hold, no call, no
// goroutine.
func TestAThousandStreamsAtOnce(t *testing.T) { //nolint:paralleltest // it looks at the goroutines of the process
	const streams, limit = 1000, time.Minute
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) }) // when all servers are closed
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	connections := func() *http.Transport {
		c := http.DefaultTransport.(*http.Transport).Clone()
		c.MaxIdleConns, c.MaxIdleConnsPerHost = streams, streams
		t.Cleanup(c.CloseIdleConnections)
		return c
	}
	registry := prometheus.NewRegistry()
	e := setup(t, func(o *gateway.Options) { o.Registry, o.Transport.Base = registry, connections() })
	caller := &http.Client{Transport: connections()}

	// Each stream stops after its first event, until all have come as far.
	var mu sync.Mutex
	var gates []chan struct{}
	e.provider.Behave = func(fakeprovider.Call) fakeprovider.Behaviour {
		gate := make(chan struct{}, 1)
		gate <- struct{}{}
		mu.Lock()
		defer mu.Unlock()
		gates = append(gates, gate)
		return fakeprovider.Behaviour{Gate: gate}
	}
	modelOf := func(i int) string { return fmt.Sprintf("m-%03d", i) }
	answers := make([]*http.Response, streams)
	texts := make([]string, streams)
	var opening errgroup.Group
	opening.SetLimit(50) // the fakes listen with a short backlog
	for i := range answers {
		opening.Go(func() error {
			body := fmt.Sprintf(`{"model":%q,"max_tokens":50,"stream":true}`, modelOf(i))
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+chatPath, strings.NewReader(body))
			if err != nil {
				return err
			}
			r.Header.Set("Authorization", "Bearer "+boundKey)
			if answers[i], err = caller.Do(r); err != nil {
				return err
			}
			first := make([]byte, 1)
			_, err = io.ReadFull(answers[i].Body, first)
			texts[i] = string(first)
			return err
		})
	}
	require.NoError(t, opening.Wait())
	require.EqualValues(t, streams, gauge(t, registry, "earmark_gateway_open_calls"))
	e.earmark.set(func() { require.Len(t, e.earmark.held, streams) })

	for _, gate := range gates {
		close(gate)
	}
	var reading errgroup.Group
	for i, answer := range answers {
		reading.Go(func() error {
			rest, err := io.ReadAll(answer.Body)
			texts[i] += string(rest)
			return err
		})
	}
	require.NoError(t, reading.Wait())
	for _, answer := range answers {
		require.NoError(t, answer.Body.Close())
	}
	e.gateway.Close(ctx)
	require.Zero(t, gauge(t, registry, "earmark_gateway_open_calls"))
	e.earmark.set(func() { require.Empty(t, e.earmark.held) })

	// The provider's own answer to who does not ask for the usage.
	e.provider.Behave = nil
	billed := map[string][]int64{}
	for _, call := range e.provider.Calls() {
		billed[modelIn(t, call.Body)] = []int64{call.Billed}
	}
	require.Len(t, billed, streams)
	e.earmark.set(func() { require.Equal(t, billed, e.earmark.charges) })
	plain := answerOf(ctx, t, e, `{"model":"m-000","stream":true}`)
	for i, text := range texts {
		require.Equal(t, strings.ReplaceAll(plain, "m-000", modelOf(i)), text)
	}
}

func modelIn(t *testing.T, body string) string {
	t.Helper()
	_, after, found := strings.Cut(body, `"model":"`)
	require.True(t, found, body)
	model, _, _ := strings.Cut(after, `"`)
	return model
}

// answerOf asks the provider itself.
func answerOf(ctx context.Context, t *testing.T, e *env, body string) string {
	t.Helper()
	upstream, stop := e.provider.Serve()
	defer stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, upstream+chatPath, strings.NewReader(body))
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	read, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return string(read)
}

func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	require.Fail(t, "there is no metric "+name)
	return 0
}
