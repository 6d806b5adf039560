package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/api"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/gateway"
)

const (
	providerKeyEnv     = "EARMARK_PROVIDER_KEY"
	providerKeyFileEnv = "EARMARK_PROVIDER_KEY_FILE"
)

// Limits of a gateway.
const (
	defaultGatewayDrain     = time.Minute
	lateChargesLimit        = 15 * time.Second // after the last call
	gatewayHeaderTimeout    = 10 * time.Second
	gatewayIdleTimeout      = 2 * time.Minute
	maxUpstreamConns        = 4096 // idle
	maxGatewayHeaderBytes   = 64 << 10
	gatewayUserAgent        = "earmark-gateway"
	gatewayDefaultAddress   = "127.0.0.1:8081"
	gatewayDefaultMaxOutput = 16_384
)

// gatewayCommand is the flags of earmark gateway.
type gatewayCommand struct {
	settings
	connection
	listen          string
	upstream        string
	providerKeyFile string
	provider        string
	onExpiry        choiceFlag[earmark.OnExpiry]
	ttl             time.Duration
	maxOutputTokens int64
	drain           time.Duration
	failOpen        bool
	requireBudget   bool
	passUnknown     bool
}

func newGateway() *cobra.Command {
	g := &gatewayCommand{onExpiry: choiceFlag[earmark.OnExpiry]{noun: "WHO",
		allowed: []earmark.OnExpiry{earmark.OnExpiryCommit, earmark.OnExpiryRelease, earmark.OnExpiryReview}}}
	cmd := &cobra.Command{
		Use:   "gateway --upstream URL --on-expiry WHO",
		Short: "Guard the calls of models in every language, as a proxy before a provider",
		Long: `Stand before a provider of models. Point the base URL of an SDK here, and give
it a key of Earmark where the provider's would be. Each call reserves what it may
cost, and is charged what the provider says was used, also if its stream breaks.
The provider's key stays here.

The scope that pays is the one that the caller's key is bound to, or those in the
header Earmark-Scope.

After SIGTERM or SIGINT the calls under way go on for --drain-timeout.`,
		Example: `  export EARMARK_PROVIDER_KEY_FILE=openai.key
  earmark gateway --upstream https://api.openai.com --on-expiry commit`,
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
		RunE:                  func(cmd *cobra.Command, _ []string) error { return g.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&g.upstream, "upstream", "", "`URL` of the provider, such as https://api.openai.com (required)")
	g.onExpiry.define(cmd, "on-expiry", "who pays for a call whose usage nobody knows: commit charges what it reserved, release nobody, review leaves it to a person (required)")
	flags.StringVar(&g.providerKeyFile, "provider-key-file", "", "`file` with the provider's key (env "+providerKeyFileEnv+"; or the key itself in env "+providerKeyEnv+")")
	flags.StringVar(&g.provider, "provider", "", "`company` that bills, for Earmark's prices, such as openai; needed if several have the model")
	flags.StringVar(&g.listen, "listen", gatewayDefaultAddress, "`address` to listen on; beyond loopback every caller needs a key")
	g.connection.flags(cmd)
	flags.DurationVar(&g.ttl, "ttl", earmark.DefaultTTL, "length of the lease of a call, which is extended while it runs")
	flags.Int64Var(&g.maxOutputTokens, "max-output-tokens", gatewayDefaultMaxOutput, "reserved for the output of a call that sets no limit")
	flags.BoolVar(&g.requireBudget, "require-budget", false, "refuse a scope without a budget of its own: one above it does not count")
	flags.BoolVar(&g.failOpen, "fail-open", false, "pass calls while Earmark is away, for keys that it knew in the last hour, and charge them later: limits do not hold then")
	flags.BoolVar(&g.passUnknown, "pass-unknown", false, "pass calls that the gateway does not know, without a reservation: with the provider's key they may cost money, and read or delete what is stored there")
	flags.DurationVar(&g.drain, "drain-timeout", defaultGatewayDrain, "after a signal to stop, how long calls under way may take")
	g.settings.tlsFlags(flags)
	g.settings.opsFlags(flags)
	g.settings.networkFlags(flags, "show metrics, health and profiles on an address that is not loopback: whoever can reach it can read them")
	g.settings.logFlags(flags)
	return cmd
}

func (g *gatewayCommand) run(cmd *cobra.Command) error {
	if err := g.settings.load(cmd); err != nil {
		return err
	}
	if err := g.connection.connect(cmd); err != nil {
		return err
	}
	upstream, err := g.check()
	if err != nil {
		return err
	}
	key, err := g.providerKey()
	if err != nil {
		return usageError{err}
	}
	return g.serve(cmd.Context(), upstream, key)
}

func (g *gatewayCommand) check() (*url.URL, error) {
	upstream, err := url.Parse(g.upstream)
	host, _, hostErr := net.SplitHostPort(g.listen)
	switch {
	case g.upstream == "":
		return nil, usageError{errors.New("--upstream is missing: name the provider, such as https://api.openai.com")}
	case err != nil || upstream.Scheme != "https" && upstream.Scheme != "http" || upstream.Host == "" || upstream.RawQuery != "" || upstream.Fragment != "" || upstream.User != nil:
		return nil, usageError{fmt.Errorf("--upstream is %q; it needs the form https://api.openai.com, without a user and a query", earmark.Clip(g.upstream))}
	case upstream.Scheme == "http" && !isLoopback(upstream.Hostname()):
		return nil, usageError{fmt.Errorf("--upstream is %q: the provider's key could be read on the way; use https", earmark.Clip(g.upstream))}
	case g.onExpiry.value == "":
		return nil, usageError{errors.New("--on-expiry is missing: say who pays for a call whose usage nobody knows: commit, release or review")}
	case hostErr != nil:
		return nil, usageError{fmt.Errorf("--listen is %q; it needs the form host:port, such as %s", g.listen, gatewayDefaultAddress)}
	case g.ttl < earmark.MinTTL || g.ttl > earmark.MaxTTL || g.ttl%time.Second != 0:
		return nil, usageError{fmt.Errorf("--ttl is %s; whole seconds from %s to %s are allowed", g.ttl, earmark.MinTTL, earmark.MaxTTL)}
	case g.maxOutputTokens < 1:
		return nil, usageError{fmt.Errorf("--max-output-tokens is %d; 1 or more is allowed", g.maxOutputTokens)}
	case g.drain < 0:
		return nil, usageError{fmt.Errorf("--drain-timeout is %s; 0s or more is allowed", g.drain)}
	}
	g.settings.WithoutKeys = isLoopback(host) // as earmark dev does; an Earmark with keys refuses such callers all the same
	return upstream, nil
}

// providerKey returns the provider's key; "" if there is none.
func (g *gatewayCommand) providerKey() (string, error) {
	file, key := g.providerKeyFile, strings.TrimSpace(os.Getenv(providerKeyEnv))
	if file == "" {
		file = os.Getenv(providerKeyFileEnv)
	}
	switch {
	case file == "":
		return key, nil
	case key != "":
		return "", fmt.Errorf("%s is set, and the file %s is named; give one of them", providerKeyEnv, file)
	}
	content, err := os.ReadFile(file) //nolint:gosec // whoever runs the command says which file
	if err != nil {
		return "", fmt.Errorf("--provider-key-file (or %s): %w", providerKeyFileEnv, err)
	}
	if key = strings.TrimSpace(string(content)); key == "" || strings.ContainsAny(key, "\r\n") {
		return "", fmt.Errorf("--provider-key-file (or %s): %s needs one line with the key", providerKeyFileEnv, file)
	}
	return key, nil
}

func (g *gatewayCommand) serve(ctx context.Context, upstream *url.URL, providerKey string) error {
	logger := g.settings.logger()
	files, err := g.settings.certificate(logger)
	if err != nil {
		return err
	}
	// No key of its own: each call has that of its caller.
	earmarks, err := client.New(g.connection.url, client.WithRootCAs(g.connection.roots), client.WithLogger(logger),
		client.WithUserAgent(gatewayUserAgent+"/"+version))
	if err != nil {
		return usageError{fmt.Errorf("--url (or %s): %w", urlEnv, err)}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	handler, err := gateway.New(gateway.Options{
		Upstream: upstream, ProviderKey: providerKey, Earmark: earmarks, WithoutKeys: g.settings.WithoutKeys, Hosts: g.settings.AllowedHosts,
		Registry: registry, Logger: logger,
		Transport: client.TransportOptions{
			OnExpiry: g.onExpiry.value, Provider: g.provider, TTL: g.ttl, MaxOutputTokens: g.maxOutputTokens,
			RequireBudget: g.requireBudget, FailOpen: g.failOpen, PassUnknown: g.passUnknown, Base: upstreamTransport(),
		},
	})
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", g.listen)
	if err != nil {
		return fmt.Errorf("the gateway cannot listen on %s (choose another with --listen): %w", g.listen, err)
	}
	server := api.Server(g.listen, handler, logger)
	// A stream may take hours. A caller that sends its body slowly holds nothing.
	server.ReadTimeout, server.WriteTimeout, server.ReadHeaderTimeout, server.IdleTimeout = 0, 0, gatewayHeaderTimeout, gatewayIdleTimeout
	server.MaxHeaderBytes = maxGatewayHeaderBytes

	group, groupCtx := errgroup.WithContext(ctx)
	opsCtx, stopOps := context.WithCancel(context.WithoutCancel(ctx))
	defer stopOps()
	if g.settings.OpsAddr != "" {
		health := api.HealthHandler(map[string]func(context.Context) error{"earmark": handler.Ready}, version, commit)
		ops := api.OpsServer(g.settings.OpsAddr, health, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), g.settings.AllowedHosts, logger)
		defer context.AfterFunc(opsCtx, func() { _ = ops.Close() })()
		group.Go(func() error { return unlessClosed(ops.ListenAndServe()) })
	}
	group.Go(func() error { return unlessClosed(serveOn(server, listener, files)) })
	group.Go(func() error {
		<-groupCtx.Done()
		defer stopOps()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.drain)
		defer cancel()
		err := server.Shutdown(drain)
		if err != nil { // the streams that are left are cut, and charged as estimates
			_ = server.Close()
		}
		late, cancelLate := context.WithTimeout(context.WithoutCancel(ctx), lateChargesLimit)
		defer cancelLate()
		handler.Close(late)
		return nil
	})
	logger.InfoContext(ctx, "The gateway listens.", "address", listener.Addr().String(), "upstream", upstream.Redacted(), "earmark", g.connection.url,
		"tls", files != nil, "fail_open", g.failOpen, "version", version, "commit", commit)
	return group.Wait()
}

func unlessClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func upstreamTransport() http.RoundTripper {
	standard, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	transport := standard.Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = maxUpstreamConns, maxUpstreamConns
	return transport
}
