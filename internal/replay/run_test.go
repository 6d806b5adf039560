package replay_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/replay"
	"github.com/earmark-dev/earmark/internal/replay/replaytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// writeTrace writes rows of seconds after midnight, context and generated tokens.
func writeTrace(t *testing.T, rows ...[3]int) string {
	t.Helper()
	var text strings.Builder
	text.WriteString("TIMESTAMP,ContextTokens,GeneratedTokens\n")
	for _, row := range rows {
		at := time.Date(2025, time.March, 3, 0, 0, row[0], 0, time.UTC)
		fmt.Fprintf(&text, "%s,%d,%d\n", at.Format("2006-01-02 15:04:05.0000000"), row[1], row[2])
	}
	path := filepath.Join(t.TempDir(), "trace.csv")
	require.NoError(t, os.WriteFile(path, []byte(text.String()), 0o600))
	return path
}

// inProcess serves calls without a network, so that a test can have its own time.
type inProcess struct{ handler http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	p.handler.ServeHTTP(recorder, r)
	return recorder.Result(), nil
}

// clientOf makes one attempt a call, as replays want it.
func clientOf(t *testing.T, server *replaytest.Server) *client.Client {
	t.Helper()
	api, err := client.New("http://earmark.test", client.WithMaxAttempts(1), client.WithHTTPClient(&http.Client{Transport: inProcess{server.Handler()}}))
	require.NoError(t, err)
	return api
}

func run(t *testing.T, server *replaytest.Server, options replay.Options) *replay.Report {
	t.Helper()
	report, err := replay.Run(t.Context(), clientOf(t, server), options)
	require.NoError(t, err)
	return report
}

// options of a run at the trace's own speed; a worst case is 100 tokens of output.
func options(path string) replay.Options {
	return replay.Options{Path: path, Speed: 1, MaxOutputTokens: 100, Seed: 1}
}

func limit(tokens int64) *int64 { return &tokens }

func TestRunOverTheNetwork(t *testing.T) {
	t.Parallel()
	server := &replaytest.Server{}
	listener := httptest.NewServer(server.Handler())
	defer listener.Close()
	api, err := client.New(listener.URL, client.WithMaxAttempts(1), client.WithHTTPClient(listener.Client()))
	require.NoError(t, err)
	var shown strings.Builder

	o := options(writeTrace(t, [3]int{0, 1000, 10}, [3]int{1, 2000, 150}, [3]int{3, 0, 0}))
	o.Speed, o.Progress = 100, replay.Progress{Out: &shown}
	report, err := replay.Run(t.Context(), api, o)
	require.NoError(t, err)

	require.NoError(t, report.Err())
	require.False(t, report.Interrupted())
	require.Equal(t, replay.RowCounts{Total: 3, Sent: 3, Admitted: 3, Committed: 3, Overage: 1}, report.Rows)
	require.Equal(t, replay.TokenCounts{Reserved: 1100 + 2100 + 100, Used: 3160, Committed: 3160}, report.Tokens)
	require.Equal(t, int64(1100+2150+100), report.LimitTokens, "room for what the second row used beyond its worst case")
	require.Equal(t, int64(3), report.Admission.Count)
	require.Equal(t, int64(3), report.Commit.Count)
	require.InDelta(t, 3, report.SimulatedSeconds, 0)
	require.True(t, report.Audit.Passed)
	require.Contains(t, shown.String(), "3/3 rows")

	var printed strings.Builder
	require.NoError(t, report.Print(&printed))
	require.Contains(t, printed.String(), "tokens committed  3,160\n")
	require.True(t, strings.HasSuffix(printed.String(), "\nPASS\n"))
}

func TestDeniedRowsAreNotSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &replaytest.Server{}
		o := options(writeTrace(t, [3]int{0, 400, 50}, [3]int{60, 400, 50}, [3]int{120, 400, 50}, [3]int{180, 1, 2}))
		o.Limit = limit(1000)
		report := run(t, server, o)

		require.NoError(t, report.Err())
		require.Equal(t, replay.RowCounts{Total: 4, Sent: 4, Admitted: 2, Denied: 2, Committed: 2}, report.Rows,
			"900 of 1,000 are spent after two rows, and the last row's worst case is 101")
		require.Equal(t, int64(900), report.Tokens.Committed)
		require.Equal(t, int64(2), report.Denial.Count)
		require.Len(t, server.Reservations(), 2)
	})
}

func TestASlowServerDoesNotSlowTheArrivals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rows = 200
		var trace [][3]int
		for i := range rows {
			trace = append(trace, [3]int{i, 10, 10})
		}
		server := &replaytest.Server{BeforeReserve: func(string, int) *earmark.Error {
			time.Sleep(20 * time.Second) //nolint:forbidigo // fake time
			return nil
		}}
		o := options(writeTrace(t, trace...))
		o.Speed = 10
		began := time.Now()
		report := run(t, server, o)

		require.NoError(t, report.Err())
		require.Equal(t, int64(rows), report.Rows.Committed)
		require.Zero(t, report.Rows.Delayed)
		require.InDelta(t, 20_000, report.Admission.P50MS, 400)
		for key, at := range server.Arrivals() {
			var row int
			_, err := fmt.Sscanf(key[strings.LastIndex(key, "-")+1:], "%d", &row)
			require.NoError(t, err)
			require.Equal(t, time.Duration(row-1)*time.Second/10, at.Sub(began), "row %d arrives at its time", row)
		}
	})
}

func TestArrivalsPastTheBoundAreDelayedAndCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const late = 30
		server := &replaytest.Server{BeforeReserve: func(string, int) *earmark.Error {
			time.Sleep(3 * time.Second) //nolint:forbidigo // fake time
			return nil
		}}
		var trace [][3]int
		for range replay.MaxInFlight + late {
			trace = append(trace, [3]int{})
		}
		trace = append(trace, [3]int{60, 0, 0}) // in time again
		report := run(t, server, options(writeTrace(t, trace...)))

		require.NoError(t, report.Err())
		require.Equal(t, replay.MaxInFlight, server.MostDeciding())
		require.Equal(t, int64(late), report.Rows.Delayed)
		require.Greater(t, report.LongestDelayMS, 3000.0)
		require.Greater(t, report.Admission.MaxMS, 6000.0, "a row's latency counts from the moment at which it was due")
	})
}

func unknown() *earmark.Error {
	return earmark.Errorf(earmark.CodeAdmissionUnknown, "there was no decision in time")
}

func TestAnUnknownAdmissionIsAskedForAgainWithTheSameKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		keys := make(map[string]int)
		server := &replaytest.Server{AfterReserve: func(key string, attempt int) *earmark.Error {
			mu.Lock()
			defer mu.Unlock()
			keys[key]++
			if attempt < 3 {
				return unknown()
			}
			return nil
		}}
		report := run(t, server, options(writeTrace(t, [3]int{0, 100, 10}, [3]int{0, 200, 10})))

		require.NoError(t, report.Err())
		require.Equal(t, replay.RowCounts{Total: 2, Sent: 2, Admitted: 2, Committed: 2, Retried: 2}, report.Rows)
		require.Len(t, keys, 2)
		for key, attempts := range keys {
			require.Equal(t, 3, attempts, key)
		}
	})
}

func TestRowsWithoutADecisionAreLookedUpInTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fail := func(suffix string, err func() *earmark.Error) func(string, int) *earmark.Error {
			return func(key string, _ int) *earmark.Error {
				if strings.HasSuffix(key, suffix) {
					return err()
				}
				return nil
			}
		}
		server := &replaytest.Server{
			AfterReserve:  fail("-1", unknown), // it is reserved, and nobody hears of it
			BeforeReserve: fail("-2", func() *earmark.Error { return earmark.Errorf(earmark.CodeInternal, "broken") }),
		}
		report := run(t, server, options(writeTrace(t, [3]int{0, 100, 10}, [3]int{0, 200, 10}, [3]int{1, 300, 10})))

		require.NoError(t, report.Err())
		require.Equal(t, replay.RowCounts{Total: 3, Sent: 3, Admitted: 2, NotReserved: 1, Committed: 2, Retried: 2, FoundLater: 1}, report.Rows)
		require.Equal(t, int64(110+310), report.Tokens.Committed)
		require.Equal(t, int64(1), report.Admission.Count, "a decision that came in the end has no latency")
	})
}

func TestRowsThatStayUnknownFailTheRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &replaytest.Server{
			AfterReserve: func(string, int) *earmark.Error { return unknown() },
			BeforeShow:   func(string) *earmark.Error { return earmark.Errorf(earmark.CodeUnavailable, "away") },
		}
		report := run(t, server, options(writeTrace(t, [3]int{0, 100, 10})))

		require.Equal(t, int64(1), report.Rows.Unknown)
		require.Zero(t, report.Rows.Admitted+report.Rows.Denied)
		require.ErrorContains(t, report.Err(), "1 rows have no decision")
		require.False(t, report.Audit.Passed, "what is reserved for it shows")
	})
}

func TestAnAcceptedCommitIsFollowedToItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &replaytest.Server{BeforeCommit: func(string, int) *earmark.Error {
			return earmark.Errorf(earmark.CodeUnavailable, replaytest.Accepted)
		}}
		report := run(t, server, options(writeTrace(t, [3]int{0, 100, 10}, [3]int{1, 100, 200})))

		require.NoError(t, report.Err())
		require.Equal(t, replay.RowCounts{Total: 2, Sent: 2, Admitted: 2, Committed: 2, Accepted: 2, Overage: 1}, report.Rows)
	})
}

func TestACommitIsRepeatedUntilItLands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &replaytest.Server{BeforeCommit: func(_ string, attempt int) *earmark.Error {
			if attempt < 9 { // longer than a row is patient for
				return earmark.Errorf(earmark.CodeUnavailable, "away")
			}
			return nil
		}}
		report := run(t, server, options(writeTrace(t, [3]int{0, 100, 10})))

		require.NoError(t, report.Err())
		require.Equal(t, int64(1), report.Rows.Committed)
	})
}

func TestAReservationThatIsOverByTheRetryCountsAsAdmitted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &replaytest.Server{}
		server.AfterReserve = func(key string, attempt int) *earmark.Error {
			if attempt == 1 {
				return unknown()
			}
			err := earmark.Errorf(earmark.CodeReservationExpired, "expired")
			err.Reservation = &earmark.Reservation{ID: earmark.ReservationID(earmark.DefaultTenant, key), State: earmark.StateExpired}
			return err
		}
		report := run(t, server, options(writeTrace(t, [3]int{0, 100, 10})))
		require.NoError(t, report.Err())
		require.Equal(t, replay.RowCounts{Total: 1, Sent: 1, Admitted: 1, Committed: 1, Retried: 1}, report.Rows)
	})
}

func TestAnAnswerThatNoRowShouldGetFailsTheRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &replaytest.Server{BeforeReserve: func(key string, _ int) *earmark.Error {
			if strings.HasSuffix(key, "-2") {
				return earmark.Errorf(earmark.CodeNoBudget, "the budget is gone")
			}
			return nil
		}}
		report := run(t, server, options(writeTrace(t, [3]int{0, 100, 10}, [3]int{0, 100, 10})))
		require.Equal(t, int64(1), report.Rows.Failed)
		require.True(t, report.Audit.Passed)
		require.EqualError(t, report.Err(), "replay: reserving for row 2: the budget is gone")
	})
}

func TestTheAuditFindsOneToken(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]*replaytest.Server{
		"committed one too many": {LieCommitted: 1},
		"committed one too few":  {LieCommitted: -1},
		"reserved one too many":  {LieReserved: 1},
		"journal one too many":   {LieJournal: 1},
		"journal one too few":    {LieJournal: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var trace [][3]int
				for i := range 20 { // a journal of several pages
					trace = append(trace, [3]int{i, 100, 10})
				}
				report := run(t, server, options(writeTrace(t, trace...)))
				require.False(t, report.Audit.Passed)
				require.ErrorContains(t, report.Err(), "the ledger does not hold exactly what the admitted rows used")
				var wrong []replay.Check
				for _, check := range report.Audit.Checks {
					if !check.Passed() {
						wrong = append(wrong, check)
					}
				}
				require.Len(t, wrong, 1)
				require.InDelta(t, wrong[0].Expected, wrong[0].Found, 1)
				var printed strings.Builder
				require.NoError(t, report.Print(&printed))
				require.True(t, strings.HasSuffix(printed.String(), "\nMISMATCH\n"))
			})
		})
	}
}

func TestTheAuditFindsAdmissionsPastTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// A budget that keeps to another limit than it was given.
		server := &replaytest.Server{ToldLimit: limit(150)}
		report := run(t, server, options(writeTrace(t, [3]int{0, 100, 10}, [3]int{30, 100, 10})))
		require.False(t, report.Audit.Passed)
		for _, check := range report.Audit.Checks {
			require.Equal(t, check.What != "admissions past the limit", check.Passed(), check.What)
		}
	})
}

func TestAnInterruptSettlesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		server := &replaytest.Server{BeforeReserve: func(string, int) *earmark.Error {
			time.Sleep(2 * time.Second) //nolint:forbidigo // fake time
			return nil
		}}
		path := writeTrace(t, [3]int{0, 100, 9000}, [3]int{10, 100, 10}, [3]int{20, 100, 10}, [3]int{30, 100, 10})
		time.AfterFunc(21*time.Second, cancel) // one model works for minutes, one admission is under way, one row is to come
		report, err := replay.Run(ctx, clientOf(t, server), options(path))

		require.NoError(t, err)
		require.NoError(t, report.Err())
		require.True(t, report.Interrupted())
		require.Equal(t, replay.RowCounts{Total: 4, Sent: 3, Admitted: 3, Committed: 3, Overage: 1}, report.Rows)
		require.True(t, report.Audit.Passed)
		require.Equal(t, 22*time.Second, time.Since(began), "models end at once")
		var printed strings.Builder
		require.NoError(t, report.Print(&printed))
		require.Contains(t, printed.String(), "Stopped after 3 of 4 rows")
	})
}

func TestARunNeedsABudgetOfItsOwn(t *testing.T) {
	t.Parallel()
	server := &replaytest.Server{}
	api := clientOf(t, server)
	o := options(writeTrace(t, [3]int{0, 1, 1}))
	o.Speed, o.Scope = 100, "acme/ml"
	report, err := replay.Run(t.Context(), api, o)
	require.NoError(t, err)
	require.Equal(t, "acme/ml", report.Scope)

	report, err = replay.Run(t.Context(), api, o)
	require.Nil(t, report)
	require.ErrorContains(t, err, "a run needs a budget of its own")

	o.Scope = ""
	report, err = replay.Run(t.Context(), api, o)
	require.NoError(t, err)
	require.NoError(t, earmark.ValidateScope("scope", report.Scope))
	require.True(t, strings.HasPrefix(report.Scope, "replay/"))
}

func TestNothingIsSentOfABadTrace(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text, want string
	}{
		"a bad last line": {"2025-03-03 00:00:00,1,1\n2025-03-03 00:00:01,1,x\n", "line 3, column GeneratedTokens"},
		"a mad time":      {"1925-03-03 00:00:00,1,1\n2025-03-03 00:00:01,1,1\n", "hours at speed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := &replaytest.Server{}
			path := filepath.Join(t.TempDir(), "trace.csv")
			require.NoError(t, os.WriteFile(path, []byte("TIMESTAMP,ContextTokens,GeneratedTokens\n"+test.text), 0o600))
			report, err := replay.Run(t.Context(), clientOf(t, server), options(path))
			require.Nil(t, report)
			require.ErrorContains(t, err, test.want)
			require.Empty(t, server.Arrivals())
		})
	}
}
