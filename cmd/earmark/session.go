package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// Limits of one call from the command line.
const (
	callTimeout    = 30 * time.Second // as long as the server may take to answer
	maxAnswerBytes = 64 << 20
	maxListed      = 100_000 // rows that one list fetches
)

// options are the flags of every command that calls a server.
type options struct {
	connection
	asJSON bool
	watch  bool
}

func (o *options) flags(cmd *cobra.Command) {
	o.connection.flags(cmd)
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print the API's JSON")
}

func (o *options) watchFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.watch, "watch", false, fmt.Sprintf("show it again every %s until Ctrl-C", watchEvery))
}

// session is one run of a command: a connection to a server, and a screen.
type session struct {
	options
	ctx    context.Context
	cmd    *cobra.Command
	api    *client.Client
	last   *recorder
	screen screen
	// answer is what --json prints, if that is not the last answer alone.
	answer []byte
	// subject is what the call is about, for advice if it fails.
	subject subject
}

// subject is what a call is about.
type subject struct {
	scopes        []string
	amounts       earmark.Amounts
	key           string
	verb          string // with its arguments, to send it again; reserve if empty
	requireBudget bool   // a budget above a scope does not cover it
}

// run adapts the function of a command that calls a server.
func (o *options) run(do func(s *session, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		s, err := o.open(cmd)
		if err != nil {
			return err
		}
		return s.explain(do(s, args))
	}
}

func (o *options) open(cmd *cobra.Command, extra ...client.Option) (*session, error) {
	if err := o.connect(cmd); err != nil {
		return nil, err
	}
	last := &recorder{next: o.transport()}
	api, err := o.client(cliUserAgent, append([]client.Option{
		client.WithHTTPClient(&http.Client{Transport: last, Timeout: callTimeout}),
	}, extra...)...)
	if err != nil {
		return nil, err
	}
	return &session{options: *o, ctx: cmd.Context(), cmd: cmd, api: api, last: last, screen: screenOf(cmd.OutOrStdout())}, nil
}

// present shows what load returns: once, or repeatedly with --watch.
func (s *session) present(load func() (view, error)) error {
	if s.watch {
		return s.keepShowing(load)
	}
	shown, err := load()
	if err != nil {
		return err
	}
	return s.print(shown)
}

// print prints the view, or with --json the answer behind it.
func (s *session) print(shown view) error {
	text := s.render(shown)
	if s.asJSON {
		var indented bytes.Buffer
		if err := json.Indent(&indented, bytes.TrimSpace(s.lastAnswer()), "", "  "); err != nil {
			return fmt.Errorf("the answer is not JSON: %w", err)
		}
		text = indented.String() + "\n"
	}
	_, err := io.WriteString(s.screen.out, text)
	return err
}

func (s *session) render(shown view) string {
	sheet := &sheet{screen: s.screen, now: s.last.now()}
	shown(sheet)
	return sheet.text.String()
}

// note prints a remark besides the answer; not to a pipe.
func (s *session) note(format string, args ...any) {
	if !s.asJSON {
		fmt.Fprintf(s.cmd.ErrOrStderr(), format+"\n", args...)
	}
}

func (s *session) lastAnswer() []byte {
	if s.answer != nil {
		return s.answer
	}
	return s.last.body
}

// collect fetches pages until it has limit rows or there are no more.
func collect[T any](s *session, limit int, fetch func(cursor string, limit int) (earmark.Page[T], error)) (earmark.Page[T], error) {
	var all earmark.Page[T]
	documents := []json.RawMessage{}
	for {
		page, err := fetch(all.NextCursor, min(limit-len(all.Data), earmark.MaxPageSize))
		if err != nil {
			return all, err
		}
		var document earmark.Page[json.RawMessage]
		if err := json.Unmarshal(s.last.body, &document); err != nil {
			return all, fmt.Errorf("the answer does not decode: %w", err)
		}
		documents = append(documents, document.Data...)
		all.Data, all.NextCursor = append(all.Data, page.Data...), page.NextCursor
		if all.NextCursor == "" || len(page.Data) == 0 || len(all.Data) >= limit {
			break
		}
	}
	var err error
	s.answer, err = json.Marshal(earmark.Page[json.RawMessage]{Data: documents, NextCursor: all.NextCursor})
	return all, err
}

// limitFlag defines the flag for the number of rows in a list.
func limitFlag(cmd *cobra.Command, limit *int, byDefault int) {
	cmd.Flags().IntVar(limit, "limit", byDefault, "show at most `N` rows; pages are fetched as needed")
}

func checkLimit(limit int) error {
	if limit < 1 || limit > maxListed {
		return usageError{fmt.Errorf("--limit is %d; 1 to %s are allowed", limit, earmark.FormatAmount(maxListed))}
	}
	return nil
}

// recorder keeps the last answer unchanged, because --json prints exactly that, and its
// server's time, from which ages are counted. One call is made at a time.
type recorder struct {
	next    http.RoundTripper
	changes bool // the call requests a change
	header  http.Header
	body    []byte
}

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	r.changes, r.header, r.body = request.Method != http.MethodGet, nil, nil
	response, err := r.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if err != nil {
		return nil, err
	}
	r.header, r.body = response.Header, body
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}

// now returns the server's clock, because the times in its answers follow it; if the server
// sent none, the local clock.
func (r *recorder) now() time.Time {
	if at, err := http.ParseTime(r.header.Get("Date")); err == nil {
		return at
	}
	return time.Now()
}

// repeated reports whether an earlier call with the same key did the work.
func (r *recorder) repeated() bool { return r.header.Get("Idempotency-Hit") == "true" }

// problem returns the last answer if it is a problem of the API.
func (r *recorder) problem() []byte {
	var p struct {
		Code earmark.Code `json:"code"`
	}
	if json.Unmarshal(r.body, &p) != nil || p.Code == "" {
		return nil
	}
	return r.body
}

// asAPIError returns the API's error in err's chain.
func asAPIError(err error) (*earmark.Error, bool) {
	var e *earmark.Error
	ok := errors.As(err, &e)
	return e, ok
}
