//go:build unix

package chaos_test

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// tenantNames are the tenants. They use the same scopes and the same idempotency keys.
var tenantNames = []string{"acme-chaos", "globex-chaos"}

// tenant is a tenant with its API key.
type tenant struct {
	name    string
	key     string           // of the role admin
	browser string           // a key of the role operate, for the status page
	clients []*client.Client // one a server
	budgets *budgets
}

func newTenant(c *cluster, name string) *tenant {
	c.t.Helper()
	c.MustRun("tenant", "create", name, "--reason", "chaos")
	key := func(role earmark.Role) string {
		return strings.TrimSpace(c.MustRun("key", "create", "--tenant", name, "--role", string(role), "--reason", "chaos"))
	}
	own := &tenant{name: name, key: key(earmark.RoleAdmin), browser: key(earmark.RoleOperate)}
	for _, n := range c.nodes {
		if n.front != nil {
			transport := &http.Transport{MaxIdleConnsPerHost: mostAtOnce}
			c.t.Cleanup(transport.CloseIdleConnections)
			// One attempt a call: the journal is to have all of them.
			api, err := client.New("http://"+n.front.address(), client.WithAPIKey(own.key), client.WithMaxAttempts(1),
				client.WithHTTPClient(&http.Client{Transport: transport, Timeout: callLimit}))
			require.NoError(c.t, err)
			own.clients = append(own.clients, api)
		}
	}
	own.budgets = newBudgets(c.t, own.clients[0], c.former)
	return own
}

// keyIDs are the parts of the tenant's keys that are no secret.
func (own *tenant) keyIDs() []string {
	return []string{strings.Split(own.key, "_")[1], strings.Split(own.browser, "_")[1]}
}

func (d *driver) tenant(name string) *tenant {
	for _, own := range d.tenants {
		if own.name == name {
			return own
		}
	}
	panic("unreachable: every request is of one of the tenants")
}

// other is the tenant that is not this one.
func (d *driver) other(name string) *tenant {
	if d.tenants[0].name == name {
		return d.tenants[1]
	}
	return d.tenants[0]
}

// budget is a budget of either tenant, by its id.
func (d *driver) budget(id string) *budget {
	for _, own := range d.tenants {
		for _, budget := range own.budgets.list {
			if budget.ID == id {
				return budget
			}
		}
	}
	return nil
}

// trespass is a call with the id of a reservation of the other tenant, and what came of it.
type trespass struct {
	verb    string
	id      string
	outcome outcome
	code    earmark.Code
	at      time.Time
}

// trespassIn is how many admitted requests there are for one that the other tenant meddles with.
const trespassIn = 5

var trespassVerbs = []string{verbCommit, verbRelease, verbExtend, verbShow, verbAdopt}

// Calls that only a trespass makes.
const (
	verbShow  = "show"
	verbAdopt = "adopt"
)

// trespass calls the API with a key of the other tenant while the request is under way. A commit that came through
// would be found by its usage: nobody else asks for that much.
func (d *driver) trespass(l *life, verb string) {
	other := d.other(l.Tenant)
	api := other.clients[rand.IntN(len(other.clients))]
	var err error
	switch verb {
	case verbCommit:
		used := earmark.Amounts{}
		for unit := range l.Request.Amounts {
			used[unit] = 1000 * mostTokens
		}
		_, err = api.Commit(d.ctx, l.ID, used)
	case verbRelease:
		_, err = api.Release(d.ctx, l.ID, "it is not mine")
	case verbExtend:
		_, err = api.Extend(d.ctx, l.ID, mostTTLSeconds*time.Second)
	case verbAdopt:
		_, err = api.Adopt(d.ctx, l.ID, client.By{Reason: "it is not mine"})
	default:
		_, err = api.Reservation(d.ctx, l.ID)
	}
	t := trespass{verb: verb, id: l.ID, at: time.Now()}
	t.outcome, t.code = outcomeOf(answer{err: err})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trespasses = append(d.trespasses, t)
}
