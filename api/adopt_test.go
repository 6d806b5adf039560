package api

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestAdopt(t *testing.T) {
	t.Parallel()
	const body = `{"operator":"alice","reason":"terminated by mistake"}`
	held, committed := reservationIn(earmark.StateHeld), reservationIn(earmark.StateCommitted)
	as := func(outcome earmark.Outcome, r *earmark.Reservation) earmark.Result {
		return earmark.Result{Outcome: outcome, Reservation: r}
	}

	f := &fake{reservation: held, result: as(earmark.OutcomeApplied, held)}
	setup(t, f).do("POST", settlePath("adopt"), body).status(http.StatusOK)
	require.Equal(t, []string{"Check", "Guarded", "Adopt", "Start", "MarkChecked", "Reservation"}, f.names())
	require.Equal(t, earmark.Transition{ID: held.ID, Tenant: earmark.DefaultTenant, Actor: earmark.OperatorActor("alice"), Reason: "terminated by mistake"}, f.calls[2].arg)

	f = &fake{reservation: held, guarded: true}
	setup(t, f).do("POST", settlePath("adopt"), "").status(http.StatusOK)
	require.Equal(t, []string{"Check", "Guarded", "MarkChecked", "Reservation"}, f.names(), "it keeps its workflow, and nothing is noted")

	f = &fake{reservation: committed, result: as(earmark.OutcomeConflict, committed)}
	p := setup(t, f).do("POST", settlePath("adopt"), body).problem(http.StatusConflict, earmark.CodeAlreadySettled)
	require.Contains(t, p.Detail, "committed already")
	require.Equal(t, []string{"Check", "Adopt"}, f.names(), "no workflow is started")

	setup(t, &fake{}).do("POST", settlePath("adopt"), body).problem(http.StatusNotFound, earmark.CodeNotFound)

	f = &fake{reservation: held, coordinatorErr: earmark.Errorf(earmark.CodeUnavailable, "Temporal is away")}
	setup(t, f).do("POST", settlePath("adopt"), body).problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.Equal(t, []string{"Check", "Guarded"}, f.names(), "what Temporal does not tell is no finding")
}
