package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/proto"
)

// warmUp is how long each way runs before the first round.
const warmUp = time.Second

// orderSeed decides the order of the ways in each round, the same in every run.
const orderSeed = 20261125

// paths runs whole lifecycles by every path.
func (r *run) paths(ctx context.Context) error {
	ways, err := r.pathWays(ctx)
	if err != nil {
		return err
	}
	if err := r.rounds(ctx, ways, func(w *way) error {
		b, err := r.closed(ctx, w, r.Clients, r.Duration)
		if err == nil {
			r.keepPath("paths."+w.key, b)
		}
		return err
	}); err != nil {
		return err
	}
	if err := r.histories(ctx, ways); err != nil {
		return err
	}
	r.pathTables(ways)
	return nil
}

func (r *run) pathWays(ctx context.Context) ([]*way, error) {
	main, err := r.serving(ctx, mainName)
	if err != nil {
		return nil, err
	}
	separate, err := r.serving(ctx, separateName)
	if err != nil {
		return nil, err
	}
	floor, err := r.floors()
	if err != nil {
		return nil, err
	}
	statements, err := r.statements(ctx)
	if err != nil {
		return nil, err
	}
	if r.samples, err = startTextbook(main); err != nil {
		return nil, err
	}
	ways := append(floor.ways(main), statements.way())
	ways = append(ways, r.samples.ways()...)
	if r.Base != "" {
		base, err := r.serving(ctx, baseName)
		if err != nil {
			return nil, err
		}
		ways = append(ways, base.byHTTP("base", "earlier build", scopeOf), base.byHTTP("base_hot", "earlier build, one hot budget", hot))
	}
	return append(ways,
		main.byHTTP("earmark", "earmark", scopeOf),
		main.bySignal("earmark_signal", "earmark, commit by signal to the workflow"),
		separate.byHTTP("separate", "earmark, API and worker apart", scopeOf),
		separate.bySignal("separate_signal", "the same, commit by signal to the workflow"),
		main.byHTTP("earmark_hot", "earmark, one hot budget", hot)), nil
}

// rounds warms every way up, and then lets them take turns, in another order in each
// round: what a way leaves to be done in the background is not always to the same one's
// cost.
func (r *run) rounds(ctx context.Context, ways []*way, turn func(*way) error) error {
	for _, w := range ways {
		if _, err := r.closed(ctx, w, r.Clients, min(warmUp, r.Duration)); err != nil {
			return fmt.Errorf("warming up: %w", err)
		}
	}
	for round := range r.Rounds {
		r.say("  round %d of %d", round+1, r.Rounds)
		order := rand.New(rand.NewPCG(orderSeed, uint64(round))).Perm(len(ways)) //nolint:gosec // no secret
		for _, i := range order {
			if err := turn(ways[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) keepPath(key string, b *block) {
	f := &r.report.figures
	f.add(key+".lifecycles_per_second", "1/s", b.perSecond())
	f.add(key+".admission_p50_ms", "ms", b.quantileMS(0.50))
	f.add(key+".admission_p99_ms", "ms", b.quantileMS(0.99))
	f.add(key+".cpu_earmark_ms", "ms", b.each(b.used.earmark*1000))
	f.add(key+".cpu_temporal_ms", "ms", b.each(b.used.temporal*1000))
	f.add(key+".cpu_postgres_ms", "ms", b.each(b.used.postgres*1000))
	f.add(key+".cpu_driver_ms", "ms", b.each(b.used.driver*1000))
	f.add(key+".wal_bytes", "bytes", b.each(b.used.walBytes))
}

// histories looks at one lifecycle of each way in Temporal.
func (r *run) histories(ctx context.Context, ways []*way) error {
	for _, w := range ways {
		if w.workflowID == nil {
			continue
		}
		queried := r.samples.queries.Load()
		id, err := w.admit(ctx, serials.Add(1))
		if err != nil {
			return fmt.Errorf("%s: %w", w.title, err)
		}
		queried = r.samples.queries.Load() - queried
		if err := w.settle(ctx, id); err != nil {
			return fmt.Errorf("%s: %w", w.title, err)
		}
		events, err := historyOf(ctx, w.on.temporal, w.workflowID(id))
		if err != nil {
			return fmt.Errorf("%s: %w", w.title, err)
		}
		r.report.figures.add("paths."+w.key+".history_events", "events", float64(len(events)))
		r.report.figures.add("paths."+w.key+".actions", "actions", float64(actions(events)+queried))
		size := 0
		for _, event := range events {
			size += proto.Size(event)
		}
		r.report.figures.add("paths."+w.key+".history_bytes", "bytes", float64(size))
	}
	return nil
}

// historyOf reads the history of a workflow once it has closed.
func historyOf(ctx context.Context, c client.Client, workflowID string) ([]*historypb.HistoryEvent, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := c.GetWorkflow(ctx, workflowID, "").Get(ctx, nil); err != nil {
		return nil, err
	}
	var events []*historypb.HistoryEvent
	iterator := c.GetWorkflowHistory(ctx, workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for iterator.HasNext() {
		event, err := iterator.Next()
		if err != nil {
			return nil, err
		}
		events = append(events, event)
	}
	return events, nil
}

// actions counts what Temporal Cloud bills, as its documentation of actions says: a
// start, a signal, an update, a timer, an activity and each retry of it, an upsert of
// search attributes, and all markers of one workflow task together. Queries leave
// no event, and are counted where they are made.
func actions(events []*historypb.HistoryEvent) int64 {
	var count int64
	marked := make(map[int64]bool)
	for _, event := range events {
		switch event.GetEventType() { //nolint:exhaustive // no other is billed
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED, enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
			enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED, enumspb.EVENT_TYPE_TIMER_STARTED,
			enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, enumspb.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
			count++
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_STARTED:
			count += int64(event.GetActivityTaskStartedEventAttributes().GetAttempt()) - 1
		case enumspb.EVENT_TYPE_MARKER_RECORDED:
			task := event.GetMarkerRecordedEventAttributes().GetWorkflowTaskCompletedEventId()
			if !marked[task] {
				count++
			}
			marked[task] = true
		}
	}
	return count
}

func (r *run) pathTables(ways []*way) {
	f := &r.report.figures
	for _, pair := range [][2]string{
		{"earmark", "bare_update"}, {"earmark", "bare_instant"}, {"earmark", "bare_window"}, {"earmark_signal", "bare_signal"},
		{"separate", "bare_update"}, {"separate_signal", "bare_signal"}, {"earmark_hot", "bare_update"},
		{"earmark", "textbook"}, {"earmark", "practice"}, {"earmark_hot", "earmark"}, {"earmark", "base"}, {"earmark_hot", "base_hot"},
		{"textbook", "bare_signal"}, {"practice", "bare_update"}, {"earmark", "statements"}, {"bare_indexed", "bare_update"},
		{"bare_instant", "bare_update"}, {"bare_window", "bare_update"}, {"base", "bare_update"}, {"base_hot", "bare_update"},
	} {
		f.ratio("paths."+pair[0]+".per_"+pair[1], "paths."+pair[0]+".lifecycles_per_second", "paths."+pair[1]+".lifecycles_per_second")
	}
	floors := map[string]string{"earmark": "bare_update", "earmark_signal": "bare_signal", "separate": "bare_update",
		"separate_signal": "bare_signal", "earmark_hot": "bare_update", "bare_indexed": "bare_update", "bare_instant": "bare_update", "bare_window": "bare_update",
		"textbook": "bare_signal", "practice": "bare_update", "base": "bare_update", "base_hot": "bare_update"}
	rates := Table{Title: fmt.Sprintf("Lifecycles, %d clients, %d budgets: median (least–most) of %d rounds", r.Clients, manyBudgets, r.Rounds),
		Columns: []string{"path", "lifecycles/s", "× its floor", "admission p50, ms", "p99, ms"}}
	costs := Table{Title: "Where the time goes, per lifecycle: CPU in ms of one core",
		Columns: []string{"path", "earmark", "Temporal", "Postgres", "load driver", "WAL, bytes", "history events", "their bytes", "billable actions"}}
	for _, w := range ways {
		key := "paths." + w.key
		ratio := ""
		if floor, has := floors[w.key]; has {
			ratio = f.text(key + ".per_" + floor)
		}
		rates.row(w.title, f.text(key+".lifecycles_per_second"), ratio, f.text(key+".admission_p50_ms"), f.text(key+".admission_p99_ms"))
		costs.row(w.title, f.short(key+".cpu_earmark_ms"), f.short(key+".cpu_temporal_ms"), f.short(key+".cpu_postgres_ms"), f.short(key+".cpu_driver_ms"),
			f.short(key+".wal_bytes"), f.short(key+".history_events"), f.short(key+".history_bytes"), f.short(key+".actions"))
	}
	rates.Notes = []string{
		"A floor's and the textbook's workers run in the load driver; Earmark is called over HTTP in processes of its own.",
		"Earmark's settle window covers these lifecycles, which settle at once; holds that last longer are in the scenario durations.",
		"A round ends when what it began has ended: the last settlement is in the ledger, and the last workflows have closed.",
	}
	costs.Notes = []string{"The bare Postgres statements write the same rows into tables of the same form, with two commits a lifecycle."}
	r.report.Tables = append(r.report.Tables, rates, costs)
}
