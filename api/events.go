package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

const eventsPath = "/v1/events"

// Streams of events.
const (
	// maxStreams bounds the open streams of one server.
	maxStreams = 200
	// streamPoll is the pause between two reads of the ledger for a stream.
	streamPoll = time.Second
	// streamBeat is the pause after which a comment shows that a quiet stream is alive.
	streamBeat = 15 * time.Second
	// streamLife is how long a stream stays open. Its reader connects again, and its key is checked again.
	streamLife = 5 * time.Minute
	// streamRetryMS is after how many milliseconds a browser connects again.
	streamRetryMS = 1000
)

const (
	streamType        = "text/event-stream"
	lastEventIDHeader = "Last-Event-ID"
)

// wantsStream reports whether the call asks for events as they happen.
func wantsStream(c *gin.Context) bool {
	return c.FullPath() == eventsPath && c.Request.Method == http.MethodGet && strings.Contains(c.GetHeader("Accept"), streamType)
}

func (s *server) listEvents(c *gin.Context) error {
	filter, err := eventFilter(c)
	if err != nil {
		return err
	}
	if wantsStream(c) {
		return s.streamEvents(c, filter)
	}
	page, err := s.events(c, filter)
	if err != nil {
		return err
	}
	page.Data = orEmpty(page.Data)
	return answer(c, http.StatusOK, page)
}

func (s *server) events(c *gin.Context, filter earmark.EventFilter) (earmark.EventPage, error) {
	return inQueue(c.Request.Context(), s.queues.lists, callerOf(c).turn(), func() (earmark.EventPage, error) {
		return s.ledger.Events(c.Request.Context(), callerOf(c).tenant, filter)
	})
}

func eventFilter(c *gin.Context) (filter earmark.EventFilter, err error) {
	q, err := readQuery(c, "after", "type", "budget_id", "limit")
	if err != nil {
		return filter, err
	}
	if filter.After, err = eventPosition("after", q.values.Get("after")); err != nil {
		return filter, err
	}
	if q.values.Has("type") {
		for name := range strings.SplitSeq(q.values.Get("type"), ",") {
			if err := earmark.ValidateEventType("type", earmark.EventType(name)); err != nil {
				return filter, err
			}
			filter.Types = append(filter.Types, earmark.EventType(name))
		}
	}
	if filter.BudgetID, err = q.id("budget_id", earmark.IsBudgetID, "bud_7sk2nq4d5aaaaaaaaaaaaaaaaa"); err != nil {
		return filter, err
	}
	filter.Within = callerOf(c).within()
	_, filter.Limit, err = q.page()
	return filter, err
}

func eventPosition(field, text string) (string, error) {
	if text != "" && text != earmark.AfterNow && !earmark.IsEventID(text) {
		return "", earmark.Invalidf(field, "%q is not a position; give the id of an event, the next_after of a page, or %q", earmark.Clip(text), earmark.AfterNow)
	}
	return text, nil
}

// streamEvents sends events as they happen, in the format of server-sent events, until the reader leaves, the
// server stops or the stream has lived for streamLife. It begins after the event in Last-Event-ID, or after the
// position in the query, or now.
func (s *server) streamEvents(c *gin.Context, filter earmark.EventFilter) error {
	last, err := eventPosition(lastEventIDHeader, c.GetHeader(lastEventIDHeader))
	if err != nil {
		return err
	}
	switch {
	case last != "":
		filter.After = last
	case filter.After == "":
		filter.After = earmark.AfterNow
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		full := earmark.Errorf(earmark.CodeUnavailable, "this server has %d streams of events open and opens no more; read the list, or try again", maxStreams)
		full.Queue, full.RetryAfter = "streams", retryUnavailable
		return full
	}
	page, err := s.events(c, filter)
	if err != nil {
		return err
	}
	c.Header("Content-Type", streamType)
	c.Header("X-Accel-Buffering", "no") // nginx would keep events back
	c.Status(http.StatusOK)
	stream := &eventStream{c: c, control: http.NewResponseController(c.Writer)}
	// The limits of the server are for calls that end soon.
	if err := stream.control.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("the connection takes no deadline: %w", err)
	}
	if err := stream.write(fmt.Sprintf("retry: %d\n\n", streamRetryMS)); err == nil {
		s.follow(stream, filter, page)
	}
	return nil // the answer is under way: an error has no place in it
}

// follow sends page and what comes after it.
func (s *server) follow(stream *eventStream, filter earmark.EventFilter, page earmark.EventPage) {
	ctx := stream.c.Request.Context()
	life := time.NewTimer(streamLife)
	defer life.Stop()
	poll := time.NewTicker(streamPoll)
	defer poll.Stop()
	for {
		if stream.send(page.Data) != nil {
			return
		}
		filter.After = page.NextAfter
		if len(page.Data) < filter.Limit {
			select {
			case <-ctx.Done():
				return
			case <-s.stopping:
				return
			case <-life.C:
				return
			case <-poll.C:
			}
		}
		next, err := s.events(stream.c, filter)
		if err != nil {
			if earmark.ErrorCode(err) != earmark.CodeUnavailable {
				return
			}
			next = earmark.EventPage{NextAfter: filter.After} // the ledger is away for a moment
		}
		page = next
	}
}

// eventStream writes server-sent events.
type eventStream struct {
	c       *gin.Context
	control *http.ResponseController
	wrote   time.Time
}

// send writes the events; without any, a comment from time to time.
func (w *eventStream) send(events []earmark.Event) error {
	var text strings.Builder
	for _, event := range events {
		data, err := json.Marshal(event)
		if err != nil {
			return fmt.Errorf("an event does not encode: %w", err)
		}
		fmt.Fprintf(&text, "id: %s\nevent: %s\ndata: %s\n\n", event.ID, event.Type, data)
	}
	if text.Len() == 0 && time.Since(w.wrote) >= streamBeat {
		text.WriteString(": alive\n\n")
	}
	return w.write(text.String())
}

func (w *eventStream) write(text string) error {
	if text == "" {
		return nil
	}
	w.wrote = time.Now()
	if err := w.control.SetWriteDeadline(w.wrote.Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := w.c.Writer.WriteString(text); err != nil {
		return err
	}
	return w.control.Flush()
}
