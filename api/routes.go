package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// route is one call of the API or one page.
type route struct {
	method string // a GET answers HEAD too
	path   string
	// role is the role that a key needs; empty if the call needs no key. Handlers check
	// further if it depends on the request: see caller.needs.
	role    earmark.Role
	handler func(*gin.Context) error
}

// routes returns every call; openapi.yaml lists the same with their roles, except the
// pages.
func (s *server) routes(metrics func(*gin.Context) error) []route {
	return []route{
		{http.MethodPost, "/v1/budgets", earmark.RoleAdmin, s.createBudget},
		{http.MethodGet, "/v1/budgets", earmark.RoleRead, s.listBudgets},
		{http.MethodGet, "/v1/budgets/:id", earmark.RoleRead, s.getBudget},
		{http.MethodGet, "/v1/budgets/:id/usage", earmark.RoleRead, s.usageReport},
		{http.MethodGet, "/v1/budgets/:id/windows", earmark.RoleRead, s.listWindows},
		{http.MethodPatch, "/v1/budgets/:id", earmark.RoleAdmin, s.patchBudget},
		{http.MethodDelete, "/v1/budgets/:id", earmark.RoleAdmin, s.archiveBudget},
		{http.MethodGet, "/v1/budgets/:id/overrides", earmark.RoleRead, s.listOverrides},
		{http.MethodPost, "/v1/budgets/:id/overrides", earmark.RoleAdmin, s.createOverride},
		{http.MethodPost, "/v1/budgets/:id/overrides/:override_id/end", earmark.RoleAdmin, s.endOverride},
		{http.MethodPost, "/v1/budgets/:id/reset", earmark.RoleAdmin, s.resetBudget},
		{http.MethodGet, "/v1/budgets/:id/grants", earmark.RoleRead, s.listGrants},
		{http.MethodPost, "/v1/budgets/:id/grants", earmark.RoleAdmin, s.createGrant},
		{http.MethodPost, "/v1/budgets/:id/grants/:grant_id/void", earmark.RoleAdmin, s.voidGrant},

		{http.MethodPost, "/v1/reservations", earmark.RoleReserve, s.reserve},
		{http.MethodGet, "/v1/reservations", earmark.RoleRead, s.listReservations},
		{http.MethodGet, "/v1/reservations/:id", earmark.RoleRead, s.getReservation},
		{http.MethodPost, "/v1/reservations/:id/commit", earmark.RoleSettle, s.commit},
		{http.MethodPost, "/v1/reservations/:id/release", earmark.RoleSettle, s.release},
		{http.MethodPost, "/v1/reservations/:id/extend", earmark.RoleSettle, s.extend},
		{http.MethodPost, "/v1/reservations/:id/adopt", earmark.RoleOperate, s.adopt},
		{http.MethodPost, "/v1/reservations/:id/corrections", earmark.RoleOperate, s.correct},

		{http.MethodPost, "/v1/usage", earmark.RoleReserve, s.chargeUsage},
		{http.MethodPost, "/v1/decisions", earmark.RoleReserve, s.decide},
		{http.MethodGet, "/v1/entries", earmark.RoleRead, s.listEntries},
		{http.MethodGet, eventsPath, earmark.RoleRead, s.listEvents},

		{http.MethodGet, webhooksPath, earmark.RoleAdmin, s.listWebhooks},
		{http.MethodPost, webhooksPath, earmark.RoleAdmin, s.createWebhook},
		{http.MethodGet, webhooksPath + "/:id", earmark.RoleAdmin, s.getWebhook},
		{http.MethodPatch, webhooksPath + "/:id", earmark.RoleAdmin, s.patchWebhook},
		{http.MethodDelete, webhooksPath + "/:id", earmark.RoleAdmin, s.deleteWebhook},
		{http.MethodPost, webhooksPath + "/:id/rotate-secret", earmark.RoleAdmin, s.rotateWebhookSecret},
		{http.MethodPost, webhooksPath + "/:id/test", earmark.RoleAdmin, s.testWebhook},
		{http.MethodGet, webhooksPath + "/:id/deliveries", earmark.RoleAdmin, s.listDeliveries},
		{http.MethodPost, webhooksPath + "/:id/replay", earmark.RoleAdmin, s.replayWebhook},

		{http.MethodGet, "/v1/overview", earmark.RoleRead, s.overview},

		{http.MethodGet, "/v1/whoami", earmark.RoleRead, s.whoami},
		{http.MethodGet, "/v1/keys", earmark.RoleAdmin, s.listKeys},
		{http.MethodPost, "/v1/keys", earmark.RoleAdmin, s.createKey},
		{http.MethodPost, "/v1/keys/:id/rotate", earmark.RoleAdmin, s.rotateKey},
		{http.MethodPost, "/v1/keys/:id/revoke", earmark.RoleAdmin, s.revokeKey},
		{http.MethodGet, "/v1/audit", earmark.RoleAdmin, s.listAudit},

		{http.MethodGet, "/v1/prices", earmark.RoleRead, s.listPrices},
		{http.MethodPost, "/v1/prices", earmark.RoleAdmin, s.addPrices},
		{http.MethodPost, "/v1/prices/explain", earmark.RoleRead, s.explainPrice},

		{http.MethodPost, codecPath, earmark.RoleOperate, s.decodePayloads},
		{http.MethodOptions, codecPath, "", s.allowDecoding},

		{http.MethodGet, "/healthz", "", s.health},
		{http.MethodGet, "/readyz", "", s.ready},
		{http.MethodGet, "/metrics", "", metrics},
		{http.MethodGet, "/openapi.yaml", "", s.document},

		{http.MethodGet, "/sign-in", "", s.showSignIn},
		{http.MethodPost, "/sign-in", "", s.signIn},
		{http.MethodPost, "/sign-out", "", s.signOut},
		{http.MethodGet, "/", "", status},
		{http.MethodGet, "/status/*file", "", status},
		{http.MethodGet, "/docs", "", docs},
		{http.MethodGet, "/docs/*file", "", docs},
	}
}

// register adds the routes to the router and returns the role that each needs.
func (s *server) register(router *gin.Engine, routes []route) map[string]earmark.Role {
	roles := make(map[string]earmark.Role)
	for _, r := range routes {
		methods := []string{r.method}
		if r.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		for _, method := range methods {
			router.Handle(method, r.path, s.handle(r.handler))
			roles[method+" "+r.path] = r.role
		}
	}
	return roles
}

func handlerOf(h http.Handler) func(*gin.Context) error {
	return func(c *gin.Context) error {
		h.ServeHTTP(c.Writer, c.Request)
		return nil
	}
}
