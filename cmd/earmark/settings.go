package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.temporal.io/sdk/client"
	temporalconfig "go.temporal.io/sdk/contrib/envconfig"
	temporallog "go.temporal.io/sdk/log"

	"github.com/earmark-dev/earmark/internal/lifecycle"
	"github.com/earmark-dev/earmark/internal/tracing"
	"github.com/earmark-dev/earmark/internal/webhook"
	"github.com/earmark-dev/earmark/worker"
	"github.com/earmark-dev/earmark/workflows"
)

// settings come from the environment and from flags, which take precedence. Temporal's own
// settings come from its standard environment variables and profile file.
type settings struct {
	DatabaseURL             string        `env:"EARMARK_DATABASE_URL"`
	DatabaseURLFile         string        `env:"EARMARK_DATABASE_URL_FILE"`
	Addr                    string        `env:"EARMARK_ADDR, default=127.0.0.1:8080"`
	AllowNetwork            bool          `env:"EARMARK_ALLOW_UNAUTHENTICATED_NETWORK_ACCESS"`
	WithoutKeys             bool          `env:"EARMARK_WITHOUT_KEYS"`
	AllowedHosts            []string      `env:"EARMARK_ALLOWED_HOSTS"`
	TLSCert                 string        `env:"EARMARK_TLS_CERT"`
	TLSKey                  string        `env:"EARMARK_TLS_KEY"`
	UIURL                   string        `env:"EARMARK_UI_URL"`
	Grace                   time.Duration `env:"EARMARK_GRACE"`
	AdmissionDeadline       time.Duration `env:"EARMARK_ADMISSION_DEADLINE"`
	SettleWindow            time.Duration `env:"EARMARK_SETTLE_WINDOW, default=1500ms"`
	DrainDelay              time.Duration `env:"EARMARK_DRAIN_DELAY, default=5s"`
	OpsAddr                 string        `env:"EARMARK_OPS_ADDR"`
	WithoutWorker           bool          `env:"EARMARK_WITHOUT_WORKER"`
	WithoutSearchAttributes bool          `env:"EARMARK_WITHOUT_SEARCH_ATTRIBUTES"`
	TemporalPrefix          string        `env:"EARMARK_TEMPORAL_PREFIX"`
	AllowPrivateWebhooks    bool          `env:"EARMARK_ALLOW_PRIVATE_WEBHOOKS"`
	PayloadKeys             string        `env:"EARMARK_PAYLOAD_KEYS_FILE"`
	LogLevel                slog.Level    `env:"EARMARK_LOG_LEVEL, default=info"`
	LogFormat               string        `env:"EARMARK_LOG_FORMAT"`

	temporalAddress   string // "": from Temporal's own settings
	temporalNamespace string
	// temporalDetail returns what /readyz adds about a Temporal that answers; may be nil.
	temporalDetail func() string
}

// Bounds of the settings.
const (
	// defaultDrainDelay is enough for a balancer that checks every second or two.
	defaultDrainDelay    = 5 * time.Second
	minGrace             = time.Second
	maxGrace             = time.Hour
	minAdmissionDeadline = 50 * time.Millisecond
	maxAdmissionDeadline = 15 * time.Second
	maxDrainDelay        = 5 * time.Minute
)

func (s *settings) databaseFlags(flags *pflag.FlagSet) {
	flags.StringVar(&s.DatabaseURL, "database-url", "", "Postgres connection string; with a password in it, set env EARMARK_DATABASE_URL, or name a file that holds it in env EARMARK_DATABASE_URL_FILE: other accounts can read a command line")
}

func (s *settings) temporalFlags(flags *pflag.FlagSet) {
	flags.StringVar(&s.temporalAddress, "temporal-address", "", "host:port of Temporal (env TEMPORAL_ADDRESS, or the profile in Temporal's configuration file)")
	flags.StringVar(&s.temporalNamespace, "temporal-namespace", "", "Temporal namespace (env TEMPORAL_NAMESPACE, or the profile)")
	flags.BoolVar(&s.WithoutSearchAttributes, "without-search-attributes", false, "do not use search attributes, where the namespace cannot have them (env EARMARK_WITHOUT_SEARCH_ATTRIBUTES)")
}

func (s *settings) workerFlags(flags *pflag.FlagSet) {
	flags.StringVar(&s.PayloadKeys, "payload-keys", "", "file of keys that encrypt what Earmark leaves in Temporal, one a line: the first encrypts, all decrypt; `earmark payload-key` makes one (env EARMARK_PAYLOAD_KEYS_FILE)")
	flags.StringVar(&s.TemporalPrefix, "temporal-prefix", "", "prefix of the names in Temporal, such as staging, where several installations share a namespace: of the task queue, the schedule and the workflows (env EARMARK_TEMPORAL_PREFIX)")
	flags.BoolVar(&s.AllowPrivateWebhooks, "allow-private-webhooks", false, "deliver events also over http and to addresses that are not public: whoever may make a webhook can then have this process call every service that it reaches (env EARMARK_ALLOW_PRIVATE_WEBHOOKS)")
	flags.DurationVar(&s.Grace, "grace", worker.DefaultGrace, "how long past its expiry a reservation is left to its workflow before the sweeper expires it (env EARMARK_GRACE)")
}

func (s *settings) logFlags(flags *pflag.FlagSet) {
	flags.TextVar(&s.LogLevel, "log-level", slog.LevelInfo, "debug, info, warn or error (env EARMARK_LOG_LEVEL)")
	flags.StringVar(&s.LogFormat, "log-format", "json", "json or text (env EARMARK_LOG_FORMAT)")
}

func (s *settings) apiFlags(flags *pflag.FlagSet) {
	flags.StringVar(&s.Addr, "addr", "127.0.0.1:8080", "address that the HTTP API listens on (env EARMARK_ADDR)")
	s.networkFlags(flags, "listen on an address that is not loopback although calls need no key: whoever can reach it can spend every budget")
	flags.StringVar(&s.UIURL, "ui-url", "", "address of Temporal UI, for the links in answers (env EARMARK_UI_URL)")
	flags.DurationVar(&s.AdmissionDeadline, "admission-deadline", lifecycle.DefaultDeadline, "how long a caller waits for a decision at most (env EARMARK_ADMISSION_DEADLINE)")
	flags.DurationVar(&s.SettleWindow, "settle-window", lifecycle.DefaultSettleWindow, "how long a reservation's first workflow task stays open for its commit or release, which then costs no second task; 0s is not at all (env EARMARK_SETTLE_WINDOW)")
	flags.DurationVar(&s.DrainDelay, "drain-delay", defaultDrainDelay, "after a signal to stop, how long calls are still answered while /readyz answers 503, so that load balancers turn away first; longer than they take for that (env EARMARK_DRAIN_DELAY)")
}

func (s *settings) tlsFlags(flags *pflag.FlagSet) {
	flags.StringVar(&s.TLSCert, "tls-cert", "", "PEM file with the server's certificate and its chain: the HTTP API then speaks TLS alone, 1.2 or newer; the file is read again when it changes (env EARMARK_TLS_CERT)")
	flags.StringVar(&s.TLSKey, "tls-key", "", "PEM file with the private key of --tls-cert (env EARMARK_TLS_KEY)")
}

func (s *settings) opsFlags(flags *pflag.FlagSet) {
	flags.StringVar(&s.OpsAddr, "ops-addr", "", "address of its own for operators, such as 127.0.0.1:9464: /metrics, /healthz, /readyz and /debug/pprof, without TLS; none when empty (env EARMARK_OPS_ADDR)")
}

// networkFlags defines the flags for listening on a network; allow describes the first one.
func (s *settings) networkFlags(flags *pflag.FlagSet, allow string) {
	flags.BoolVar(&s.AllowNetwork, "allow-unauthenticated-network-access", false, allow+" (env EARMARK_ALLOW_UNAUTHENTICATED_NETWORK_ACCESS)")
	flags.StringSliceVar(&s.AllowedHosts, "allowed-hosts", nil,
		"names that callers use for this process, besides IP addresses and names without a dot, such as earmark.internal.example; other names are refused, since a web page could have them point here (env EARMARK_ALLOWED_HOSTS)")
}

// load reads from the environment what no flag has set, and checks all settings.
func (s *settings) load(cmd *cobra.Command) error {
	var env settings
	if err := readEnvironment(cmd.Context(), &env); err != nil {
		return usageError{err}
	}
	warnOfEnvironment(cmd.ErrOrStderr(), os.Environ())
	if flag := cmd.Flags().Lookup("database-url"); flag != nil && flag.Changed && hasPassword(s.DatabaseURL) {
		fmt.Fprintln(cmd.ErrOrStderr(), "earmark: warning: --database-url holds a password, which other accounts of this machine can read in the list of processes; "+
			"set EARMARK_DATABASE_URL, or EARMARK_DATABASE_URL_FILE to the path of a file that holds it")
	}
	// A flag takes precedence; then comes the environment, then the flag's default.
	take := func(flag string, fromEnv bool, apply func()) {
		if defined := cmd.Flags().Lookup(flag); defined != nil && !defined.Changed && fromEnv {
			apply()
		}
	}
	take("database-url", true, func() { s.DatabaseURL = env.DatabaseURL })
	take("addr", true, func() { s.Addr = env.Addr })
	take("allowed-hosts", len(env.AllowedHosts) > 0, func() { s.AllowedHosts = env.AllowedHosts })
	take("allow-unauthenticated-network-access", true, func() { s.AllowNetwork = env.AllowNetwork })
	take("without-keys", true, func() { s.WithoutKeys = env.WithoutKeys })
	take("tls-cert", true, func() { s.TLSCert = env.TLSCert })
	take("tls-key", true, func() { s.TLSKey = env.TLSKey })
	take("ui-url", true, func() { s.UIURL = env.UIURL })
	take("grace", env.Grace != 0, func() { s.Grace = env.Grace })
	take("admission-deadline", env.AdmissionDeadline != 0, func() { s.AdmissionDeadline = env.AdmissionDeadline })
	take("settle-window", true, func() { s.SettleWindow = env.SettleWindow })
	take("drain-delay", true, func() { s.DrainDelay = env.DrainDelay })
	take("ops-addr", true, func() { s.OpsAddr = env.OpsAddr })
	take("without-worker", true, func() { s.WithoutWorker = env.WithoutWorker })
	take("without-search-attributes", true, func() { s.WithoutSearchAttributes = env.WithoutSearchAttributes })
	take("payload-keys", true, func() { s.PayloadKeys = env.PayloadKeys })
	take("allow-private-webhooks", env.AllowPrivateWebhooks, func() { s.AllowPrivateWebhooks = true })
	take("temporal-prefix", true, func() { s.TemporalPrefix = env.TemporalPrefix })
	take("log-level", true, func() { s.LogLevel = env.LogLevel })
	take("log-format", env.LogFormat != "", func() { s.LogFormat = env.LogFormat })
	return s.check(cmd)
}

func (s *settings) check(cmd *cobra.Command) error {
	has := func(flag string) bool { return cmd.Flags().Lookup(flag) != nil }
	switch {
	case has("log-format") && s.LogFormat != "json" && s.LogFormat != "text":
		return usageError{fmt.Errorf("--log-format is %q; use json or text", s.LogFormat)}
	case has("grace") && (s.Grace < minGrace || s.Grace > maxGrace):
		return usageError{fmt.Errorf("--grace is %s; %s to %s are allowed", s.Grace, minGrace, maxGrace)}
	case has("admission-deadline") && (s.AdmissionDeadline < minAdmissionDeadline || s.AdmissionDeadline > maxAdmissionDeadline):
		return usageError{fmt.Errorf("--admission-deadline is %s; %s to %s are allowed", s.AdmissionDeadline, minAdmissionDeadline, maxAdmissionDeadline)}
	case has("settle-window") && (s.SettleWindow < 0 || s.SettleWindow > lifecycle.MaxSettleWindow):
		return usageError{fmt.Errorf("--settle-window is %s; 0s to %s are allowed", s.SettleWindow, lifecycle.MaxSettleWindow)}
	case has("drain-delay") && (s.DrainDelay < 0 || s.DrainDelay > maxDrainDelay):
		return usageError{fmt.Errorf("--drain-delay is %s; 0s to %s are allowed", s.DrainDelay, maxDrainDelay)}
	case s.TLSCert == "" && s.TLSKey != "", s.TLSCert != "" && s.TLSKey == "":
		return usageError{fmt.Errorf("--tls-cert is %q and --tls-key is %q; give both, or neither", s.TLSCert, s.TLSKey)}
	}
	if err := s.prefix().Validate(); has("temporal-prefix") && err != nil {
		return usageError{fmt.Errorf("--temporal-prefix: %w", err)}
	}
	if has("addr") { // with keys, a caller without a key can do nothing
		if err := checkAddr("--addr", s.Addr, s.AllowNetwork || !s.WithoutKeys); err != nil {
			return err
		}
	}
	if has("ops-addr") && s.OpsAddr != "" {
		return checkAddr("--ops-addr", s.OpsAddr, s.AllowNetwork)
	}
	return nil
}

func (s *settings) webhooks() webhook.Allowed {
	return webhook.Allowed{Private: s.AllowPrivateWebhooks}
}

func (s *settings) prefix() workflows.Prefix { return workflows.Prefix(s.TemporalPrefix) }

// loadWithDatabase is load for commands that need a database.
func (s *settings) loadWithDatabase(cmd *cobra.Command) error {
	if err := s.load(cmd); err != nil {
		return err
	}
	if s.DatabaseURL == "" {
		return usageError{fmt.Errorf("which database? Set EARMARK_DATABASE_URL, EARMARK_DATABASE_URL_FILE or --database-url, such as postgres://user:password@127.0.0.1:5432/earmark")}
	}
	return nil
}

// checkAddr refuses to listen on a network if the server requires no key.
func checkAddr(flag, addr string, allowNetwork bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return usageError{fmt.Errorf("%s is %q; it needs the form host:port, such as 127.0.0.1:8080", flag, addr)}
	}
	if allowNetwork || isLoopback(host) {
		return nil
	}
	return usageError{fmt.Errorf("%s is %q, which others can reach, and calls there need no key: listen on a loopback address such as 127.0.0.1:8080, or pass --allow-unauthenticated-network-access (EARMARK_ALLOW_UNAUTHENTICATED_NETWORK_ACCESS=true) where a private network protects it", flag, addr)}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (s *settings) logger() *slog.Logger {
	options := &slog.HandlerOptions{Level: s.LogLevel, ReplaceAttr: tracing.RenameKeys}
	if s.LogFormat == "text" {
		return slog.New(tracing.Logs(slog.NewTextHandler(os.Stderr, options)))
	}
	return slog.New(tracing.Logs(slog.NewJSONHandler(os.Stderr, options)))
}

// A connection to a Temporal server that hangs is given up after the sum of these. Then calls take the other servers, where there
// are some; until then each call on it waits in vain. The SDK's defaults are 30 s and 15 s. Temporal refuses pings more often
// than every 10 s (frontend.keepAliveMinTime).
const (
	temporalKeepAlive        = 11 * time.Second
	temporalKeepAliveTimeout = 3 * time.Second
)

// temporal returns a client that connects on its first use, so that a process can start
// before Temporal does. adjust is applied after all other options.
func (s *settings) temporal(logger *slog.Logger, adjust ...func(*client.Options) error) (c client.Client, namespace string, err error) {
	options, err := temporalconfig.LoadDefaultClientOptions()
	if err != nil {
		return nil, "", usageError{fmt.Errorf("Temporal's settings: %w", err)}
	}
	if s.temporalAddress != "" {
		options.HostPort = s.temporalAddress
	}
	if s.temporalNamespace != "" {
		options.Namespace = s.temporalNamespace
	}
	if options.Namespace == "" {
		options.Namespace = client.DefaultNamespace
	}
	// Messages have one to three kB: compression would save little and cost 3% of the CPU
	// of a lifecycle.
	options.ConnectionOptions.GrpcCompression = &client.GrpcCompressionNone{}
	options.ConnectionOptions.KeepAliveTime, options.ConnectionOptions.KeepAliveTimeout = temporalKeepAlive, temporalKeepAliveTimeout // mutation: temporal-keep-alive
	options.Logger = temporallog.NewStructuredLogger(logger)
	for _, change := range adjust {
		if err := change(&options); err != nil {
			return nil, "", err
		}
	}
	c, err = client.NewLazyClient(options)
	if err != nil {
		return nil, "", usageError{fmt.Errorf("Temporal's settings: %w", err)}
	}
	return c, options.Namespace, nil
}
