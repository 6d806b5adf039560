// Package replaytest has an Earmark in memory for tests of replays: as much of the
// HTTP API as they call, and ways to make it fail and lie.
package replaytest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/earmark-dev/earmark"
)

// pageSize is small, so that a short journal has several pages.
const pageSize = 7

// Server is an Earmark with one budget. Its hooks are set before it serves.
type Server struct {
	// BeforeReserve runs before an admission is decided and AfterReserve after it;
	// what they return, if anything, is answered instead. attempt counts the calls
	// with the same key, from 1.
	BeforeReserve func(key string, attempt int) *earmark.Error
	AfterReserve  func(key string, attempt int) *earmark.Error
	// BeforeCommit runs before a commit, in the same way. CodeUnavailable with
	// Accepted as its message is a 202.
	BeforeCommit func(id string, attempt int) *earmark.Error
	// BeforeShow runs before a reservation is shown.
	BeforeShow func(id string) *earmark.Error
	// Lies are added to what the budget says of itself, and to the journal.
	LieCommitted, LieReserved, LieJournal int64
	// ToldLimit is the limit that the budget reports in place of its own.
	ToldLimit *int64

	mu           sync.Mutex
	budget       *earmark.Budget
	reservations map[string]*earmark.Reservation
	attempts     map[string]int
	entries      []earmark.Entry
	arrivals     map[string]time.Time
	accepted     map[string]earmark.Amounts
	deciding     int
	mostDeciding int
}

// Accepted is the message of a BeforeCommit error that stands for a 202. The commit
// lands when the reservation is next shown.
const Accepted = "accepted"

// Handler serves the API.
func (s *Server) Handler() http.Handler {
	s.reservations = make(map[string]*earmark.Reservation)
	s.attempts = make(map[string]int)
	s.arrivals = make(map[string]time.Time)
	s.accepted = make(map[string]earmark.Amounts)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"status": "up", "checks": map[string]any{}})
	})
	mux.HandleFunc("POST /v1/budgets", s.createBudget)
	mux.HandleFunc("GET /v1/budgets/{id}", s.showBudget)
	mux.HandleFunc("POST /v1/reservations", s.reserve)
	mux.HandleFunc("GET /v1/reservations/{id}", s.show)
	mux.HandleFunc("POST /v1/reservations/{id}/commit", s.commit)
	mux.HandleFunc("GET /v1/entries", s.listEntries)
	return mux
}

// Arrivals are the times of the first attempt with each key.
func (s *Server) Arrivals() map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arrivals
}

// MostDeciding is how many admissions were asked for at once.
func (s *Server) MostDeciding() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mostDeciding
}

// Reservations are those made, by id.
func (s *Server) Reservations() map[string]*earmark.Reservation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reservations
}

func (s *Server) createBudget(w http.ResponseWriter, r *http.Request) {
	var request earmark.BudgetRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		fail(w, http.StatusBadRequest, earmark.Errorf(earmark.CodeInvalidRequest, "%v", err))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.budget != nil && s.budget.Scope == request.Scope {
		fail(w, http.StatusConflict, earmark.Errorf(earmark.CodeBudgetExists, "a budget on %s exists", request.Scope))
		return
	}
	s.entries = nil
	s.budget = &earmark.Budget{ID: earmark.NewBudgetID(), Scope: request.Scope, Unit: request.Unit, Limit: *request.Limit}
	told := *s.budget
	if s.ToldLimit != nil {
		told.Limit = *s.ToldLimit
	}
	answer(w, http.StatusCreated, told)
}

func (s *Server) showBudget(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	shown := *s.budget
	shown.Balance.Committed += s.LieCommitted
	shown.Balance.Reserved += s.LieReserved
	answer(w, http.StatusOK, shown)
}

func (s *Server) reserve(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	attempt := s.arrive(key)
	defer s.leave()
	var request earmark.ReservationRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		fail(w, http.StatusBadRequest, earmark.Errorf(earmark.CodeInvalidRequest, "%v", err))
		return
	}
	if s.BeforeReserve != nil {
		if err := s.BeforeReserve(key, attempt); err != nil {
			fail(w, statusOf(err), err)
			return
		}
	}
	reservation := s.admit(key, request)
	if s.AfterReserve != nil {
		if err := s.AfterReserve(key, attempt); err != nil {
			fail(w, statusOf(err), err)
			return
		}
	}
	if reservation == nil {
		fail(w, http.StatusPaymentRequired, earmark.Errorf(earmark.CodeBudgetExceeded, "does not fit"))
		return
	}
	answer(w, http.StatusCreated, reservation)
}

func (s *Server) arrive(key string) (attempt int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts[key]++
	if s.attempts[key] == 1 {
		s.arrivals[key] = time.Now()
	}
	s.deciding++
	s.mostDeciding = max(s.mostDeciding, s.deciding)
	return s.attempts[key]
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deciding--
}

// admit reserves, or returns nil where it does not fit.
func (s *Server) admit(key string, request earmark.ReservationRequest) *earmark.Reservation {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := earmark.ReservationID(earmark.DefaultTenant, key)
	if made, ok := s.reservations[id]; ok {
		return made
	}
	asked, balance := request.Amounts[s.budget.Unit], &s.budget.Balance
	if asked > s.budget.Limit-balance.Reserved-balance.Committed {
		return nil
	}
	s.reservations[id] = &earmark.Reservation{ID: id, State: earmark.StateHeld, Scopes: request.Scopes, Amounts: request.Amounts, Metadata: request.Metadata}
	s.post("reserve", id, asked, 0)
	return s.reservations[id]
}

func (s *Server) post(kind, id string, reserved, committed int64) {
	s.budget.Balance.Reserved += reserved
	s.budget.Balance.Committed += committed
	s.entries = append(s.entries, earmark.Entry{
		ID: int64(len(s.entries) + 1), Kind: kind, ReservationID: id, BudgetID: s.budget.ID, ReservedDelta: reserved, CommittedDelta: committed,
	})
}

func (s *Server) commit(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var body struct{ Usage earmark.Amounts }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		fail(w, http.StatusBadRequest, earmark.Errorf(earmark.CodeInvalidRequest, "%v", err))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts[id]++
	if s.BeforeCommit != nil {
		if err := s.BeforeCommit(id, s.attempts[id]); err != nil && err.Message == Accepted {
			s.accepted[id] = body.Usage
			answer(w, http.StatusAccepted, map[string]any{"id": id, "accepted": true})
			return
		} else if err != nil {
			fail(w, statusOf(err), err)
			return
		}
	}
	s.settle(id, body.Usage)
	answer(w, http.StatusOK, s.reservations[id])
}

func (s *Server) settle(id string, usage earmark.Amounts) {
	reservation := s.reservations[id]
	if reservation.State != earmark.StateHeld {
		return
	}
	reservation.State, reservation.Usage = earmark.StateCommitted, usage
	s.post("commit", id, -reservation.Amounts[s.budget.Unit], usage[s.budget.Unit])
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.BeforeShow != nil {
		if err := s.BeforeShow(id); err != nil {
			fail(w, statusOf(err), err)
			return
		}
	}
	reservation, ok := s.reservations[id]
	if !ok {
		fail(w, http.StatusNotFound, earmark.Errorf(earmark.CodeNotFound, "there is no reservation %s", id))
		return
	}
	answer(w, http.StatusOK, reservation)
	if usage, ok := s.accepted[id]; ok {
		s.settle(id, usage)
	}
}

func (s *Server) listEntries(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor")) // none is the first page
	to := min(from+pageSize, len(s.entries))
	page := earmark.Page[earmark.Entry]{Data: append([]earmark.Entry{}, s.entries[from:to]...)}
	if to < len(s.entries) {
		page.NextCursor = strconv.Itoa(to)
	} else if len(page.Data) > 0 {
		page.Data[len(page.Data)-1].CommittedDelta += s.LieJournal
	}
	answer(w, http.StatusOK, page)
}

func statusOf(err *earmark.Error) int {
	switch err.Code {
	case earmark.CodeAdmissionUnknown, earmark.CodeUnavailable:
		return http.StatusServiceUnavailable
	case earmark.CodeInternal:
		return http.StatusInternalServerError
	case earmark.CodeNoBudget:
		return http.StatusNotFound
	default:
		return http.StatusConflict
	}
}

func fail(w http.ResponseWriter, status int, err *earmark.Error) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": err.Code, "detail": err.Message, "reservation": err.Reservation})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
