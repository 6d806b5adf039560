package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// peersScenario compares with other ledgers, which run already.
const peersScenario = "peers"

const (
	blnk     = "blnk"
	formance = "formance"
	// peerFunds are on each account before a round: far more than a run holds.
	peerFunds = 1_000_000_000
	peerAsset = "TOK"
	// fundAtOnce is how many accounts get their funds at once.
	fundAtOnce = 8
	// maxPeerAnswer is above every answer that is read.
	maxPeerAnswer = 1 << 20
)

// PeerNames are the ledgers whose public HTTP API the scenario peers speaks.
func PeerNames() []string { return []string{blnk, formance} }

// peer is a ledger that somebody else started. It keeps holds, and no workflow.
type peer struct {
	name   string
	title  string
	url    string
	run    string // distinguishes the accounts and references of runs
	client *http.Client
	fund   func(ctx context.Context, account string) error
	hold   func(ctx context.Context, account, reference string) (id string, err error)
	settle func(ctx context.Context, id string) error
}

// newPeer speaks the API as Blnk's and Formance's documentation describe it. A lifecycle holds an amount on an
// account, takes the part that was used, and gives the rest back.
func newPeer(name, address, run string) *peer {
	p := &peer{name: name, url: strings.TrimSuffix(address, "/"), run: run,
		client: &http.Client{Timeout: callTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: maxIdleConns}}}
	switch name {
	case blnk:
		p.title, p.fund, p.hold, p.settle = "Blnk", p.blnkFund, p.blnkHold, p.blnkSettle
	case formance:
		p.title, p.fund, p.hold, p.settle = "Formance Ledger", p.formanceFund, p.formanceHold, p.formanceSettle
	}
	return p
}

// call sends body as JSON and reads the answer into out, unless it is nil.
func (p *peer) call(ctx context.Context, method, path string, body, out any) error {
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, p.url+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxPeerAnswer))
	if err != nil {
		return err
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: %s: %.300s", method, path, response.Status, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// skip_queue lets Blnk answer once the transaction is applied; by default it answers once it is queued.
func (p *peer) blnkTransaction(ctx context.Context, reference, source, destination string, amount int64, extra map[string]any) (id string, err error) {
	body := map[string]any{"amount": amount, "precision": 1, "reference": reference, "source": source, "destination": destination,
		"currency": peerAsset, "description": "benchmark", "skip_queue": true}
	for name, value := range extra {
		body[name] = value
	}
	var made struct {
		ID string `json:"transaction_id"`
	}
	err = p.call(ctx, http.MethodPost, "/transactions", body, &made)
	return made.ID, err
}

func (p *peer) blnkFund(ctx context.Context, account string) error {
	_, err := p.blnkTransaction(ctx, "fund-"+account, "@world-"+p.run, "@"+account, peerFunds, map[string]any{"allow_overdraft": true})
	return err
}

func (p *peer) blnkHold(ctx context.Context, account, reference string) (string, error) {
	return p.blnkTransaction(ctx, reference, "@"+account, "@spent-"+account, unitAmount, map[string]any{"inflight": true})
}

func (p *peer) blnkSettle(ctx context.Context, id string) error {
	path := "/transactions/inflight/" + url.PathEscape(id)
	if err := p.call(ctx, http.MethodPut, path, map[string]any{"status": "commit", "amount": unitUsage, "skip_queue": true}, nil); err != nil {
		return err
	}
	return p.call(ctx, http.MethodPut, path, map[string]any{"status": "void", "skip_queue": true}, nil)
}

type formancePosting struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Amount      int64  `json:"amount"`
	Asset       string `json:"asset"`
}

func (p *peer) formancePost(ctx context.Context, reference string, postings ...formancePosting) error {
	return p.call(ctx, http.MethodPost, "/v2/bench-"+p.run+"/transactions", map[string]any{"reference": reference, "postings": postings}, nil)
}

func (p *peer) formanceFund(ctx context.Context, account string) error {
	return p.formancePost(ctx, "fund-"+account, formancePosting{"world", account, peerFunds, peerAsset})
}

// formanceHold moves the amount to an account of the hold's own, whose name holds the account's.
func (p *peer) formanceHold(ctx context.Context, account, reference string) (string, error) {
	hold := account + ":holds:" + reference
	return hold, p.formancePost(ctx, reference, formancePosting{account, hold, unitAmount, peerAsset})
}

func (p *peer) formanceSettle(ctx context.Context, hold string) error {
	account, _, _ := strings.Cut(hold, ":holds:")
	return p.formancePost(ctx, "settle-"+hold, formancePosting{hold, "spent", unitUsage, peerAsset}, formancePosting{hold, account, unitAmount - unitUsage, peerAsset})
}

// account of a serial: Formance takes no hyphen at the start of a segment, Blnk takes any name.
func (p *peer) account(name any) string { return fmt.Sprintf("bench%s_%v", p.run, name) }

func (p *peer) way(key, title string, account func(n int64) string) *way {
	return &way{key: key, title: title, settle: p.settle, admit: func(ctx context.Context, n int64) (string, error) {
		return p.hold(ctx, account(n), fmt.Sprintf("%s_%s_%d", key, p.run, n))
	}}
}

// prepare gives every account funds.
func (p *peer) prepare(ctx context.Context) error {
	if p.name == formance {
		if err := p.call(ctx, http.MethodPost, "/v2/bench-"+p.run, map[string]any{}, nil); err != nil {
			return fmt.Errorf("%s at %s: make a ledger: %w", p.title, p.url, err)
		}
	}
	accounts := []string{p.account("hot")}
	for n := range manyBudgets {
		accounts = append(accounts, p.account(n))
	}
	// The first one alone: it makes what all of them share.
	if err := p.fund(ctx, accounts[0]); err != nil {
		return fmt.Errorf("%s at %s: funds: %w", p.title, p.url, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fundAtOnce)
	for _, account := range accounts[1:] {
		group.Go(func() error {
			if err := p.fund(ctx, account); err != nil {
				return fmt.Errorf("%s at %s: funds: %w", p.title, p.url, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// peers runs lifecycles beside other ledgers, spread over many accounts and on one.
func (r *run) peers(ctx context.Context) error {
	main, err := r.serving(ctx, mainName)
	if err != nil {
		return err
	}
	ways := []*way{main.byHTTP("earmark", "earmark", scopeOf), main.byHTTP("earmark_hot", "earmark, one hot budget", hot)}
	for _, name := range PeerNames() {
		address, asked := r.Peers[name]
		if !asked {
			continue
		}
		p := newPeer(name, address, r.id)
		r.say("  funds for %d accounts of %s", manyBudgets, p.title)
		if err := p.prepare(ctx); err != nil {
			return err
		}
		ways = append(ways, p.way(name, p.title, func(n int64) string { return p.account(n % manyBudgets) }),
			p.way(name+"_hot", p.title+", one hot account", func(int64) string { return p.account("hot") }))
	}
	if err := r.rounds(ctx, ways, func(w *way) error {
		b, err := r.closed(ctx, w, r.Clients, r.Duration)
		if err == nil {
			r.keepPath(peersScenario+"."+w.key, b)
		}
		return err
	}); err != nil {
		return err
	}
	f := &r.report.figures
	table := Table{Title: fmt.Sprintf("Lifecycles beside other ledgers, %d clients, %d accounts: median (least–most) of %d rounds", r.Clients, manyBudgets, r.Rounds),
		Columns: []string{"ledger", "lifecycles/s", "earmark is × this", "hold p50, ms", "p99, ms"}}
	for _, w := range ways {
		key, ratio := peersScenario+"."+w.key, ""
		if slices.ContainsFunc(PeerNames(), func(name string) bool { return strings.HasPrefix(w.key, name) }) {
			ours := "earmark"
			if strings.HasSuffix(w.key, "_hot") {
				ours = "earmark_hot"
			}
			f.ratio(peersScenario+"."+ours+".per_"+w.key, peersScenario+"."+ours+".lifecycles_per_second", key+".lifecycles_per_second")
			ratio = f.text(peersScenario + "." + ours + ".per_" + w.key)
		}
		table.row(w.title, f.text(key+".lifecycles_per_second"), ratio, f.text(key+".admission_p50_ms"), f.text(key+".admission_p99_ms"))
	}
	table.Notes = []string{"The other ledgers are called as they run at the addresses that --peer gives, with a Postgres of their own; they start no workflow. " +
		"Blnk: hold in flight, commit the part that was used, void the rest. Formance: a transaction to an account of the hold's own, and one that empties it."}
	r.report.Tables = append(r.report.Tables, table)
	return nil
}

// CheckPeers returns what is wrong with the addresses.
func CheckPeers(peers map[string]string) error {
	for name, address := range peers {
		if !slices.Contains(PeerNames(), name) {
			return fmt.Errorf("--peer has %q; use %s", name, strings.Join(PeerNames(), ", "))
		}
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("--peer %s has %q; an address such as http://127.0.0.1:5001 is allowed", name, address)
		}
	}
	return nil
}
