// Package api is the HTTP API of Earmark, as openapi.yaml describes it.
//
// Handlers read a request strictly, call the ledger or the coordinator, and turn the
// outcome into an answer. Only problem.go maps error codes to HTTP.
package api

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"go.temporal.io/sdk/converter"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/access"
	"github.com/earmark-dev/earmark/internal/lifecycle"
	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/internal/webhook"
	"github.com/earmark-dev/earmark/pricing"
	"github.com/earmark-dev/earmark/workflows"
)

// Ledger is the part of the ledger that the API uses. An error is a transport fault
// (*earmark.Error with CodeUnavailable) or an input that only the ledger can check
// (CodeInvalidRequest, CodeBudgetExists); every other result is an outcome.
type Ledger interface {
	// Credential returns what a key is checked against; the error is CodeNotFound if there
	// is no such key.
	Credential(ctx context.Context, keyID string) (*earmark.Credential, error)
	// MarkKeysUsed records, to the hour, that the keys were used.
	MarkKeysUsed(ctx context.Context, ids []string) error
	// CreateSignIn, SignIn and EndSignIn keep which browser is signed in with which key, by the
	// SHA-256 of its cookie. CreateSignIn and SignIn return CodeNotFound if there is no such key
	// or sign-in.
	CreateSignIn(ctx context.Context, hash [sha256.Size]byte, keyID string, lasts time.Duration) error
	SignIn(ctx context.Context, hash [sha256.Size]byte) (*earmark.Credential, error)
	EndSignIn(ctx context.Context, hash [sha256.Size]byte) error
	Keys(ctx context.Context, tenant string, filter earmark.KeyFilter) (earmark.Page[earmark.Key], error)
	CreateKey(ctx context.Context, tenant string, request earmark.KeyRequest, by earmark.Actor, reason string) (*earmark.IssuedKey, error)
	// RotateKey and RevokeKey return CodeNotFound if the tenant has no such key.
	RotateKey(ctx context.Context, tenant, id string, overlap time.Duration, by earmark.Actor, reason string) (*earmark.IssuedKey, error)
	RevokeKey(ctx context.Context, tenant, id string, by earmark.Actor, reason string) (*earmark.Key, error)
	Audit(ctx context.Context, tenant string, filter earmark.AuditFilter) (earmark.Page[earmark.AuditRecord], error)
	// AddOwnPrices adds a price version of the tenant after another; nil if a version came
	// in between.
	AddOwnPrices(ctx context.Context, tenant string, after int64, entries []pricing.Entry, source string, by earmark.Actor, reason string) (*prices.Version, error)
	// CountedUnits reads which units the budgets on the scopes and above count, or the
	// existing reservation of the id. It changes nothing.
	CountedUnits(ctx context.Context, tenant, id, hash string, scopes []string) (earmark.Counted, error)
	// Preflight reads whether the reservation exists or could not be admitted. It changes
	// nothing.
	Preflight(ctx context.Context, admission earmark.Admission) (earmark.Preflight, error)
	// Decide reads whether a request would be admitted now. It changes nothing.
	Decide(ctx context.Context, tenant string, request earmark.ReservationRequest) (earmark.Result, error)
	// Charge records usage that has no reservation.
	Charge(ctx context.Context, charge earmark.Charge) (earmark.Result, error)
	// Correct changes a final charge.
	Correct(ctx context.Context, correction earmark.Correction) (earmark.Result, error)
	// Reservation returns nil if there is none.
	Reservation(ctx context.Context, tenant, id string) (*earmark.Reservation, error)
	Reservations(ctx context.Context, tenant string, filter earmark.ReservationFilter) (earmark.Page[earmark.Reservation], error)
	// Stuck lists the reservations that need a person: those that Temporal reports and
	// those that the ledger knows.
	Stuck(ctx context.Context, tenant string, filter earmark.ReservationFilter, reported earmark.StuckIDs) (earmark.Page[earmark.Reservation], error)
	// Suspects returns held reservations whose workflows are worth a check.
	Suspects(ctx context.Context, tenant string, limit int) (ids []string, err error)
	// Check returns what a new workflow of the reservation needs; nil if there is no
	// reservation.
	Check(ctx context.Context, tenant, id string) (*earmark.Check, error)
	// Adopt writes a journal entry: the actor starts a new workflow for an open
	// reservation.
	Adopt(ctx context.Context, settlement earmark.Transition) (earmark.Result, error)
	// MarkChecked records the result of a check of the reservation's workflow.
	MarkChecked(ctx context.Context, tenant, id string, orphan, refreshed bool) error
	// Known returns those of ids that have a row.
	Known(ctx context.Context, tenant string, ids []string) ([]string, error)
	CreateBudget(ctx context.Context, tenant string, request earmark.BudgetRequest, by earmark.Actor) (*earmark.Budget, error)
	// Budget returns nil if there is none, as do PatchBudget and ArchiveBudget.
	Budget(ctx context.Context, tenant, id string) (*earmark.Budget, error)
	Budgets(ctx context.Context, tenant string, filter earmark.BudgetFilter) (earmark.Page[earmark.Budget], error)
	// UsageReport returns what a budget was charged over time; nil if there is no such budget.
	UsageReport(ctx context.Context, tenant, budgetID string, query earmark.UsageQuery) (*earmark.UsageReport, error)
	BudgetWindows(ctx context.Context, tenant, id string, filter earmark.WindowFilter) (earmark.Page[earmark.Balance], error)
	PatchBudget(ctx context.Context, tenant, id string, patch earmark.BudgetPatch, by earmark.Actor) (*earmark.Budget, error)
	// ArchiveBudget returns the same result if it is repeated.
	ArchiveBudget(ctx context.Context, tenant, id string, by earmark.Actor) (*earmark.Budget, error)
	// CreateOverride and ResetBudget apply once for each key of a budget, and return nil if there is no such budget.
	CreateOverride(ctx context.Context, tenant, budgetID, key string, request earmark.OverrideRequest, by earmark.Actor) (*earmark.Override, error)
	ResetBudget(ctx context.Context, tenant, budgetID, key string, request earmark.ReasonRequest, by earmark.Actor) (*earmark.Override, error)
	// EndOverride returns nil if the budget has no such override.
	EndOverride(ctx context.Context, tenant, budgetID, id string, by earmark.Actor, reason string) (*earmark.Override, error)
	Overrides(ctx context.Context, tenant, budgetID string, filter earmark.PageFilter) (earmark.Page[earmark.Override], error)
	// CreateGrant applies once for each key of a budget, and returns nil if there is no such budget.
	CreateGrant(ctx context.Context, tenant, budgetID, key string, request earmark.GrantRequest, by earmark.Actor) (*earmark.Grant, error)
	// VoidGrant returns nil if the budget has no such grant.
	VoidGrant(ctx context.Context, tenant, budgetID, id string, by earmark.Actor, reason string) (*earmark.Grant, error)
	Grants(ctx context.Context, tenant, budgetID string, filter earmark.PageFilter) (earmark.Page[earmark.Grant], error)
	Entries(ctx context.Context, tenant string, filter earmark.EntryFilter) (earmark.Page[earmark.Entry], error)
	// Events returns what happened after a position; a reader that continues at NextAfter misses nothing.
	Events(ctx context.Context, tenant string, filter earmark.EventFilter) (earmark.EventPage, error)
	// CountDenials writes the events of denials, and returns after how long it is to be called again to write
	// counts that wait; 0 if none wait.
	CountDenials(ctx context.Context, tenant string, denials []earmark.Denials) (due time.Duration, err error)
	// CreateWebhook makes an endpoint. Webhook and the changes of one return nil if there is no such endpoint.
	CreateWebhook(ctx context.Context, tenant string, request earmark.WebhookRequest, by earmark.Actor) (*earmark.IssuedWebhook, error)
	Webhook(ctx context.Context, tenant, id string) (*earmark.Webhook, error)
	Webhooks(ctx context.Context, tenant string, filter earmark.PageFilter) (earmark.Page[earmark.Webhook], error)
	PatchWebhook(ctx context.Context, tenant, id string, patch earmark.WebhookPatch, by earmark.Actor) (*earmark.Webhook, error)
	DeleteWebhook(ctx context.Context, tenant, id string, by earmark.Actor) (*earmark.Webhook, error)
	RotateWebhookSecret(ctx context.Context, tenant, id string, by earmark.Actor) (*earmark.IssuedWebhook, error)
	ReplayWebhook(ctx context.Context, tenant, id string, request earmark.WebhookReplay, by earmark.Actor) (*earmark.Webhook, error)
	WebhookTarget(ctx context.Context, tenant, id string) (*webhook.Target, error)
	// Deliveries lists attempts of an endpoint, of whatever tenant it is.
	Deliveries(ctx context.Context, webhookID string, filter earmark.PageFilter) (earmark.Page[earmark.Delivery], error)
	// Overview counts what is held, by age.
	Overview(ctx context.Context, tenant string, within []string) (earmark.Overview, error)
	// Ready is nil when Postgres answers and has the schema this program needs.
	Ready(ctx context.Context) error
}

// Coordinator admits and settles reservations with their workflows.
type Coordinator interface {
	// Admit reserves and starts the reservation's workflow. The caller sets AdmitBy to the
	// time of the preflight by Postgres' clock; Admit adds its own deadline. The error is
	// CodeAdmissionUnknown or CodeUnavailable.
	Admit(ctx context.Context, admission earmark.Admission) (earmark.Result, error)
	// Commit charges usage. accepted means that Postgres is away and that Temporal keeps
	// the commit durably; result is empty then.
	Commit(ctx context.Context, settlement earmark.Transition, usage earmark.Amounts) (result earmark.Result, accepted bool, err error)
	// Release gives the amounts back, with accepted as for Commit.
	Release(ctx context.Context, settlement earmark.Transition) (result earmark.Result, accepted bool, err error)
	// Extend moves the expiry of a held reservation to at least ttl from now. The outcome is unknown only if no workflow
	// has the reservation either; while Temporal does not say so, the error is CodeUnavailable.
	Extend(ctx context.Context, settlement earmark.Transition, ttl time.Duration) (earmark.Result, error)
	// Guarded reports whether an open workflow guards the reservation.
	Guarded(ctx context.Context, workflowID string) (bool, error)
	// Adopt starts a workflow that guards an existing reservation.
	Adopt(ctx context.Context, check earmark.Check) error
	// Ready returns nil if Temporal answers and is set up for this program.
	Ready(ctx context.Context) error
	// WorkersReady returns nil if a worker, in this process or another one, takes workflow
	// tasks.
	WorkersReady(ctx context.Context) error
}

// Options configure New. Ledger and Coordinator are required.
type Options struct {
	Ledger      Ledger
	Coordinator Coordinator
	// Prices has the prices of models. It may be nil; then no model has a price.
	Prices PriceBook
	// StuckFinder finds stuck reservations that only Temporal knows; nil leaves them out.
	StuckFinder StuckFinder
	// WithoutKeys makes every caller the administrator of the tenant "default". Otherwise a
	// call of /v1 needs a key.
	WithoutKeys bool
	// UIURL is the address of Temporal UI, such as http://127.0.0.1:8233; if it is empty,
	// ui_url is empty. An empty Namespace means "default".
	UIURL     string
	Namespace string
	// Prefix distinguishes this installation from others in the namespace.
	Prefix workflows.Prefix
	// Codec decrypts payloads for Temporal UI; nil if they are not encrypted.
	Codec converter.PayloadCodec
	// Webhooks says which addresses events are delivered to.
	Webhooks webhook.Allowed
	// AdmissionDeadline bounds the read before an admission, and then the coordinator's
	// work; zero means lifecycle.DefaultDeadline.
	AdmissionDeadline time.Duration
	// Logger may be nil; then it is slog.Default().
	Logger *slog.Logger
	// Registry receives the API's metrics, and /metrics shows it. One registry serves one
	// handler. Nil makes a new one.
	Registry *prometheus.Registry
	// MetricsElsewhere leaves /metrics to OpsServer: the API answers 404 there.
	MetricsElsewhere bool
	// Hosts are the names that the server answers to, besides IP addresses and names
	// without a dot. A browser sends the name of the page's own site, which a stranger may
	// point here.
	Hosts []string
	// Stopping closes when the process is about to stop: /readyz then answers 503, and
	// every other call still works. A nil channel never closes.
	Stopping <-chan struct{}
	// Traces makes the spans of calls; nil makes none.
	Traces trace.TracerProvider
	// Version and Commit are shown by /healthz.
	Version, Commit string
	// TemporalDetail returns what /readyz adds about a Temporal that is up; nil adds
	// nothing.
	TemporalDetail func() string
}

// Limits of the HTTP server. Header and body are small and arrive at once; handlerTimeout
// bounds the work on a call, so it is below writeTimeout.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
	handlerTimeout    = 20 * time.Second
)

// Server returns a server for handler on addr with the time limits that a public port
// needs. It logs net/http's messages to logger.
func Server(addr string, handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Addr:              addr,
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(serverLog{logger.Handler()}, slog.LevelWarn),
	}
}

// serverLog receives the log lines of net/http. It drops failed TLS handshakes: they are
// the caller's fault, and a balancer that only opens connections makes one every second.
type serverLog struct{ slog.Handler }

func (l serverLog) Handle(ctx context.Context, line slog.Record) error {
	level := slog.LevelWarn
	if strings.Contains(line.Message, "TLS handshake error") {
		level = slog.LevelDebug
	}
	if !l.Enabled(ctx, level) {
		return nil
	}
	record := slog.NewRecord(line.Time, level, "The HTTP server reports a fault.", 0)
	record.AddAttrs(slog.String("error", line.Message))
	return l.Handler.Handle(ctx, record)
}

// server holds what the handlers share.
type server struct {
	ledger           Ledger
	coordinator      Coordinator
	prices           PriceBook
	preflightTimeout time.Duration // for the read before an admission
	prefix           workflows.Prefix
	codec            converter.PayloadCodec // nil if payloads are not encrypted
	uiOrigin         string                 // of Temporal UI; empty if not configured
	uiBase           string                 // address of a workflow without its id; empty if not configured
	log              *slog.Logger
	metrics          *metrics
	access           access.Access
	roles            map[string]earmark.Role // the role that a call needs, by method and route
	credentials      *credentials            // nil without keys
	rates            *rates
	stopping         <-chan struct{}
	lookout          lookout
	overviews        sharedBy[earmark.Overview]
	denials          *denials
	streams          chan struct{} // a place for each open stream of events
	allowedWebhooks  webhook.Allowed
	sender           *webhook.Sender
	webhookTests     chan struct{} // a place for each test of a webhook
	queues           queues
	readiness        shared[map[string]check]
	// Shown by /healthz.
	version, commitID string
	temporalDetail    func() string // may be nil
}

func init() {
	gin.SetMode(gin.ReleaseMode) // gin's debug mode writes to stdout
}

// New returns the handler of the whole API.
func New(options Options) http.Handler {
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	if options.AdmissionDeadline == 0 {
		options.AdmissionDeadline = lifecycle.DefaultDeadline
	}
	if options.Prices == nil {
		options.Prices = prices.NewBook(noPrices{})
	}
	if options.Registry == nil {
		options.Registry = prometheus.NewRegistry()
	}
	s := &server{
		ledger:           options.Ledger,
		coordinator:      options.Coordinator,
		prices:           options.Prices,
		preflightTimeout: options.AdmissionDeadline,
		prefix:           options.Prefix,
		codec:            options.Codec,
		uiOrigin:         originOf(options.UIURL),
		uiBase:           workflowBase(options.UIURL, options.Namespace),
		log:              options.Logger,
		metrics:          newMetrics(options.Registry),
		access:           access.New(options.Hosts).But(originOf(options.UIURL), codecPath), // Temporal UI's pages may decrypt payloads
		stopping:         options.Stopping,
		lookout:          lookout{finder: options.StuckFinder, prefix: options.Prefix, ledger: options.Ledger, log: options.Logger, findings: sharedBy[finding]{kept: findingsKept, timeout: findTimeout}},
		rates:            newRates(),
		version:          options.Version,
		commitID:         options.Commit,
		overviews:        sharedBy[earmark.Overview]{kept: overviewKept, timeout: handlerTimeout},
		denials:          newDenials(options.Ledger, options.Stopping, options.Logger),
		streams:          make(chan struct{}, maxStreams),
		allowedWebhooks:  options.Webhooks,
		sender:           webhook.NewSender(options.Webhooks),
		webhookTests:     make(chan struct{}, maxWebhookTests),
		queues:           newQueues(),
		readiness:        shared[map[string]check]{kept: readinessKept, timeout: 2 * readyTimeout},
		temporalDetail:   options.TemporalDetail,
	}

	if !options.WithoutKeys {
		s.credentials = newCredentials(options.Ledger, options.Logger)
	}

	router := gin.New()
	router.HandleMethodNotAllowed = true
	router.RedirectTrailingSlash = false
	router.Use(s.authenticate)
	if options.Traces != nil {
		router.Use(traceReservation, traceCalls(options.Traces))
	}
	router.Use(s.observe, s.recoverPanic, s.closeConnections, limitTime, s.refuseStrangers, s.limitRate, s.requireCaller)
	router.NoRoute(s.handle(noRoute))
	router.NoMethod(s.handle(noMethod))
	// The handler leaves out a metric that cannot be collected, and shows the rest.
	shown := handlerOf(promhttp.HandlerFor(options.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	if options.MetricsElsewhere {
		shown = noRoute
	}
	s.roles = s.register(router, s.routes(shown))
	return router
}

// handle adapts a handler that returns an error, which becomes a problem.
func (s *server) handle(handler func(*gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		c.Header("Cache-Control", "no-store")
		if err := handler(c); err != nil {
			s.fail(c, err)
		}
	}
}

func noRoute(*gin.Context) error {
	return earmark.Errorf(earmark.CodeNotFound, "there is nothing at this path; GET /openapi.yaml lists every call")
}

func noMethod(c *gin.Context) error {
	return earmark.Errorf(earmark.CodeMethodNotAllowed, "this path does not answer %s; allowed are %s",
		earmark.Clip(c.Request.Method), c.Writer.Header().Get("Allow"))
}
