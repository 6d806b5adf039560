package api

import (
	"context"
	_ "embed"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

const (
	// readyTimeout bounds each check of /readyz.
	readyTimeout = 2 * time.Second
	// readinessKept is how long a result of the checks is reused, because many clients may
	// ask.
	readinessKept = 500 * time.Millisecond
)

// States of a check.
const (
	checkUp      = "up"
	checkDown    = "down"
	checkUnknown = "unknown" // cannot be checked, because another service is down
)

// check is the state of one service in /readyz.
type check struct {
	Status string `json:"status"`
	Detail string `json:"detail"`
}

type readiness struct {
	Status string           `json:"status"`
	Checks map[string]check `json:"checks"`
}

// openapiYAML is the contract of this package.
//
//go:embed openapi.yaml
var openapiYAML []byte

// health reports that the process runs. It checks no other service: restarting the process
// would not help a Postgres that is away.
func (s *server) health(c *gin.Context) error {
	return answer(c, http.StatusOK, map[string]string{"status": "ok", "version": s.version, "commit": s.commitID})
}

func (s *server) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// ready reports whether calls can be answered; if not, it says which service is away and
// why.
func (s *server) ready(c *gin.Context) error {
	if s.isStopping() {
		return s.notReady(c, map[string]check{"process": {Status: checkDown, Detail: "about to stop; send calls to another one"}})
	}
	checks, err := s.readiness.get(c.Request.Context(), s.look)
	if err != nil {
		return err
	}
	if len(awayWords(checks)) == 0 {
		return answer(c, http.StatusOK, readiness{Status: "ready", Checks: checks})
	}
	return s.notReady(c, checks)
}

// look runs all checks at once. Whether a worker polls is unknown while Temporal is not
// ready.
func (s *server) look(ctx context.Context) (map[string]check, error) {
	checks := runChecks(ctx, map[string]func(context.Context) error{
		"postgres": s.ledger.Ready,
		"temporal": s.coordinator.Ready,
		"worker":   s.coordinator.WorkersReady,
	})
	if checks["temporal"].Status != checkUp {
		checks["worker"] = check{Status: checkUnknown, Detail: "not known until Temporal is ready"}
	} else if s.temporalDetail != nil {
		checks["temporal"] = check{Status: checkUp, Detail: s.temporalDetail()}
	}
	return checks, nil
}

// notReady answers 503 without a line in the log, because probes ask every second or so.
func (s *server) notReady(c *gin.Context, checks map[string]check) error {
	err := earmark.Errorf(earmark.CodeUnavailable, "%s", strings.Join(awayWords(checks), "; "))
	p := s.problemOf(err, problems[err.Code])
	p.Checks = checks
	c.Header("Retry-After", wholeSeconds(retryUnavailable))
	writeJSON(c, p.Status, problemContentType, p)
	return nil
}

// runChecks runs all checks at once and waits for at most readyTimeout, even if a check
// ignores its context.
func runChecks(ctx context.Context, ready map[string]func(context.Context) error) map[string]check {
	type answer struct {
		name string
		err  error
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	answers := make(chan answer, len(ready))
	checks := make(map[string]check, len(ready))
	for name, ask := range ready {
		checks[name] = check{Status: checkDown, Detail: "did not answer within " + readyTimeout.String()}
		go func() { answers <- answer{name, ask(ctx)} }()
	}
	for range ready {
		select {
		case a := <-answers:
			if !errors.Is(a.err, context.DeadlineExceeded) {
				checks[a.name] = checkOf(a.err)
			}
		case <-ctx.Done():
			return checks
		}
	}
	return checks
}

func checkOf(err error) check {
	if err == nil {
		return check{Status: checkUp}
	}
	return check{Status: checkDown, Detail: err.Error()}
}

func awayWords(checks map[string]check) []string {
	var away []string
	for name, c := range checks {
		if c.Status == checkDown {
			away = append(away, name+": "+c.Detail)
		}
	}
	slices.Sort(away)
	return away
}

// document serves openapi.yaml.
func (s *server) document(c *gin.Context) error {
	c.Data(http.StatusOK, "application/yaml", openapiYAML)
	return nil
}
