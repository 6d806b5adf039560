package replay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// How long a call is repeated before its row is left for the end of the run. Pauses double
// from firstPause to longestPause. Each is longer at random by up to a half, in addition to
// a Retry-After, so that an overloaded server does not get many rows at once.
const (
	patience     = 30 * time.Second
	firstPause   = 500 * time.Millisecond
	longestPause = 8 * time.Second
)

// live is the life of one row: reserve, let the model work, commit.
func (r *run) live(ctx context.Context, row Row, due time.Time) {
	id, admitted := r.reserve(ctx, row, due)
	if !admitted {
		return
	}
	sleep(r.stop, r.atSpeed(modelTime(row, r.Seed)))
	r.commit(ctx, row, id)
}

// reserve requests the row's worst case until there is a decision. The row's key makes that
// safe: however often it is sent, it makes one reservation.
func (r *run) reserve(ctx context.Context, row Row, due time.Time) (id string, admitted bool) {
	key := "replay-" + r.id + "-" + strconv.FormatInt(row.Number, 10)
	request := r.request(row)
	var reservation *earmark.Reservation
	attempts, err := persist(ctx, func(ctx context.Context) (err error) {
		reservation, err = r.api.Reserve(ctx, key, request)
		return err
	})
	if attempts > 1 {
		r.tally.update(func(c *counts) { c.retried++ })
	}
	if standing := reservedBefore(err); standing != nil {
		reservation, err = standing, nil
	}
	switch {
	case err == nil:
		r.tally.observe(&r.tally.admission, time.Since(due))
		r.tally.update(func(c *counts) { r.admit(c, row) })
		return reservation.ID, true
	case client.IsDenied(err):
		r.tally.observe(&r.tally.denial, time.Since(due))
		r.tally.update(func(c *counts) { c.denied++ })
	case unanswered(err):
		r.tally.update(func(c *counts) { c.unknown++ })
		r.leave(openRow{row: row, id: idOf(err, r.tenant, key), askedAt: time.Now()})
	default:
		r.tally.update(func(c *counts) {
			c.failed++
			c.note("reserving for", row, err)
		})
	}
	return "", false
}

func (r *run) request(row Row) earmark.ReservationRequest {
	// The lease outlasts the model by the default TTL.
	lease := r.atSpeed(modelTime(row, r.Seed)) + earmark.DefaultTTL
	return earmark.ReservationRequest{
		Scopes:     []string{r.Scope},
		Amounts:    earmark.Amounts{Unit: reservedTokens(row, r.MaxOutputTokens)},
		TTLSeconds: int64(min(lease, earmark.MaxTTL) / time.Second),
		Metadata:   earmark.Metadata{"replay": r.id, "row": strconv.FormatInt(row.Number, 10)},
	}.WithDefaults()
}

func (r *run) admit(c *counts, row Row) {
	c.admitted++
	c.reservedTokens += reservedTokens(row, r.MaxOutputTokens)
	c.usedTokens += row.UsedTokens()
}

// commit charges the row's real usage, whether more or less than reserved.
func (r *run) commit(ctx context.Context, row Row, id string) {
	started := time.Now()
	var settled client.Settled
	_, err := persist(ctx, func(ctx context.Context) (err error) {
		settled, err = r.api.Commit(ctx, id, earmark.Amounts{Unit: row.UsedTokens()})
		return err
	})
	switch {
	case err == nil && settled.Accepted:
		r.tally.update(func(c *counts) { c.accepted++ })
		r.leave(openRow{row: row, id: id, admitted: true})
	case err == nil:
		r.tally.observe(&r.tally.commit, time.Since(started))
		r.settled(row, settled.Reservation)
	case unanswered(err):
		r.leave(openRow{row: row, id: id, admitted: true})
	default:
		r.tally.update(func(c *counts) { c.note("committing", row, err) })
	}
}

// settled counts a row whose reservation is settled.
func (r *run) settled(row Row, reservation *earmark.Reservation) {
	usage := earmark.Amounts{Unit: row.UsedTokens()}
	r.tally.update(func(c *counts) {
		if reservation.State != earmark.StateCommitted || !reservation.Usage.Equal(usage) {
			c.note("committing", row, fmt.Errorf("its reservation is %s with %s, not committed with %s", reservation.State, reservation.Usage, usage))
			return
		}
		c.committed++
		c.committedTokens += row.UsedTokens()
		if row.UsedTokens() > reservedTokens(row, r.MaxOutputTokens) {
			c.overage++
		}
	})
}

// persist repeats a call while it gets no answer, within a time limit.
func persist(ctx context.Context, call func(ctx context.Context) error) (attempts int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pause := firstPause
	for {
		attempts++
		err = call(ctx)
		if !unanswered(err) {
			return attempts, err
		}
		wait := pause + rand.N(pause/2) //nolint:gosec // jitter is no secret
		var answer *earmark.Error
		if errors.As(err, &answer) {
			wait += answer.RetryAfter
		}
		if deadline, _ := ctx.Deadline(); time.Until(deadline) <= wait || !sleep(ctx.Done(), wait) {
			return attempts, err
		}
		pause = min(2*pause, longestPause)
	}
}

// unanswered reports whether the outcome of the call is unknown.
func unanswered(err error) bool {
	switch earmark.ErrorCode(err) {
	case earmark.CodeAdmissionUnknown, earmark.CodeUnavailable, earmark.CodeRateLimited, earmark.CodeInternal:
		return true
	default:
		return false
	}
}

// reservedBefore returns the settled reservation that an earlier attempt made; nil if err
// has none.
func reservedBefore(err error) *earmark.Reservation {
	var answer *earmark.Error
	if !errors.As(err, &answer) {
		return nil
	}
	switch answer.Code {
	case earmark.CodeAlreadySettled, earmark.CodeReservationExpired:
		return answer.Reservation
	default:
		return nil
	}
}

// idOf returns the id of the reservation that a key may have made.
func idOf(err error, tenant, key string) string {
	var answer *earmark.Error
	if errors.As(err, &answer) && answer.ReservationID != "" {
		return answer.ReservationID
	}
	return earmark.ReservationID(tenant, key) // no answer has it
}
