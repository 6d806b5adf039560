//go:build unix

package bench

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// doubles answer as Blnk and Formance do, as far as the scenario peers asks them, and add up every account.
type doubles struct {
	mu       sync.Mutex
	balances map[string]int64
	holds    map[string]*doubleHold // of Blnk
	ledgers  map[string]bool        // of Formance
	seen     map[string]bool        // references
}

type doubleHold struct {
	account string
	open    int64
}

func startDoubles(t *testing.T) (d *doubles, peers map[string]string) {
	t.Helper()
	d = &doubles{balances: make(map[string]int64), holds: make(map[string]*doubleHold), ledgers: make(map[string]bool), seen: make(map[string]bool)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /transactions", d.answer(t, d.blnkTransaction))
	mux.HandleFunc("PUT /transactions/inflight/{id}", d.answer(t, d.blnkInflight))
	mux.HandleFunc("POST /v2/{ledger}", d.answer(t, func(r *http.Request, _ map[string]any) (any, error) {
		d.ledgers[r.PathValue("ledger")] = true
		return nil, nil
	}))
	mux.HandleFunc("POST /v2/{ledger}/transactions", d.answer(t, d.formanceTransaction))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return d, map[string]string{blnk: server.URL, formance: server.URL + "/"}
}

func (d *doubles) answer(t *testing.T, handle func(*http.Request, map[string]any) (any, error)) http.HandlerFunc {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		err := json.NewDecoder(r.Body).Decode(&body)
		d.mu.Lock()
		defer d.mu.Unlock()
		var answer any
		if err == nil {
			answer, err = handle(r, body)
		}
		if err == nil {
			err = json.NewEncoder(w).Encode(answer)
		}
		if err != nil {
			t.Errorf("%s %s: %s", r.Method, r.URL, err)
			w.WriteHeader(http.StatusBadRequest)
		}
	}
}

func (d *doubles) once(ledger string, reference any) error {
	name := ledger + fmt.Sprint(reference)
	if d.seen[name] {
		return fmt.Errorf("the reference %q was there before", name)
	}
	d.seen[name] = true
	return nil
}

func (d *doubles) move(from, to string, amount int64, overdraft bool) error {
	if !overdraft && d.balances[from] < amount {
		return fmt.Errorf("%s has %d of %d", from, d.balances[from], amount)
	}
	d.balances[from] -= amount
	d.balances[to] += amount
	return nil
}

func (d *doubles) blnkTransaction(_ *http.Request, body map[string]any) (any, error) {
	source, amount := strings.TrimPrefix(body["source"].(string), "@"), int64(body["amount"].(float64))
	destination := strings.TrimPrefix(body["destination"].(string), "@")
	if err := d.once("blnk ", body["reference"]); err != nil {
		return nil, err
	}
	id := fmt.Sprintf("txn_%d", len(d.seen))
	if body["inflight"] == true {
		d.holds[id] = &doubleHold{account: source, open: amount}
		destination = "in flight"
	}
	return map[string]any{"transaction_id": id}, d.move(source, destination, amount, body["allow_overdraft"] == true)
}

func (d *doubles) blnkInflight(r *http.Request, body map[string]any) (any, error) {
	hold := d.holds[r.PathValue("id")]
	if hold == nil || hold.open == 0 {
		return nil, fmt.Errorf("%s is not in flight", r.PathValue("id"))
	}
	amount, to := hold.open, hold.account
	if body["status"] == "commit" {
		amount, to = int64(body["amount"].(float64)), "spent"
	}
	hold.open -= amount
	return map[string]any{}, d.move("in flight", to, amount, false)
}

func (d *doubles) formanceTransaction(r *http.Request, body map[string]any) (any, error) {
	if !d.ledgers[r.PathValue("ledger")] {
		return nil, fmt.Errorf("there is no ledger %s", r.PathValue("ledger"))
	}
	if err := d.once("formance ", body["reference"]); err != nil {
		return nil, err
	}
	for _, p := range body["postings"].([]any) {
		posting := p.(map[string]any)
		source := posting["source"].(string)
		if err := d.move(source, posting["destination"].(string), int64(posting["amount"].(float64)), source == "world"); err != nil {
			return nil, err
		}
	}
	return map[string]any{}, nil
}

// requireSettled checks that every hold was given back but for what was used.
func (d *doubles) requireSettled(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	require.NotEmpty(t, d.holds)
	for id, hold := range d.holds {
		require.Zero(t, hold.open, id)
	}
	settled := int64(len(d.holds))
	for reference := range d.seen {
		if strings.HasPrefix(reference, "formance settle-") {
			settled++
		}
	}
	require.Greater(t, settled, int64(len(d.holds)), "Formance settled nothing")
	require.Equal(t, settled*unitUsage, d.balances["spent"])
	for account, balance := range d.balances {
		if strings.Contains(account, ":holds:") || account == "in flight" {
			require.Zero(t, balance, account)
		}
	}
}

func TestCheckPeers(t *testing.T) {
	t.Parallel()
	require.NoError(t, CheckPeers(map[string]string{blnk: "http://127.0.0.1:5001", formance: "https://ledger.example/base/"}))
	require.ErrorContains(t, CheckPeers(map[string]string{"tigerbeetle": "http://127.0.0.1:3000"}), `--peer has "tigerbeetle"; use blnk, formance`)
	for _, address := range []string{"", "127.0.0.1:5001", "ftp://127.0.0.1", "http://"} {
		require.ErrorContains(t, CheckPeers(map[string]string{blnk: address}), "--peer blnk has", address)
	}
}
