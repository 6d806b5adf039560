package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// longestWait is how long the server waits for calls that a client makes after its caller
// has left.
const longestWait = 20 * time.Second

// provide answers a call in the place of a provider of models.
func (s *session) provide(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s.mu.Lock()
	s.sent = append(s.sent, string(body))
	answer := answerOf(s.Case.Provider, len(s.sent))
	s.mu.Unlock()
	switch {
	case answer.Cut == "before":
		panic(http.ErrAbortHandler)
	case answer.Events != nil:
		stream(w, r, answer)
		return
	case answer.Hang:
		<-r.Context().Done()
		return
	}
	got := reply{status: max(answer.Status, http.StatusOK), header: answer.Headers, body: answer.Body}
	if answer.Text != nil {
		got.body = []byte(*answer.Text)
	}
	write(w, got, answer.Cut == "middle")
}

func stream(w http.ResponseWriter, r *http.Request, answer Answer) {
	connection := http.NewResponseController(w)
	if answer.Cut == "middle" {
		cutStream(connection, answer)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	for name, text := range answer.Headers {
		w.Header().Set(name, text)
	}
	for _, piece := range piecesOf(answer) {
		_, _ = io.WriteString(w, piece)
		_ = connection.Flush()
	}
	if answer.Hang {
		<-r.Context().Done()
	}
}

// cutStream closes the connection in the middle of a stream. The server itself would send
// "Connection: close", and the fetch of Node.js takes a cut stream for a whole one then.
func cutStream(connection *http.ResponseController, answer Answer) {
	raw, buffered, err := connection.Hijack()
	if err != nil {
		panic(err)
	}
	defer func() { _ = raw.Close() }()
	_, _ = buffered.WriteString("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, piece := range piecesOf(answer) {
		_, _ = fmt.Fprintf(buffered, "%x\r\n%s\r\n", len(piece), piece)
		_ = buffered.Flush()
	}
}

// piecesOf returns each event in two pieces, which arrive apart.
func piecesOf(answer Answer) (pieces []string) {
	for _, event := range answer.Events {
		var text string
		if json.Unmarshal(event, &text) != nil {
			text = "data: " + string(event) + "\n\n"
		}
		pieces = append(pieces, text[:len(text)/2], text[len(text)/2:])
	}
	return pieces
}

// closedURL returns the URL of a port that was free a moment ago.
func closedURL(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return "http://" + listener.Addr().String(), listener.Close()
}

// awaitCalls waits for the calls that the case wants: a caller that leaves does not wait for
// them.
func (s *session) awaitCalls(ctx context.Context) {
	wanted := 0
	for _, want := range s.Case.Calls {
		wanted += max(want.Times, want.AtLeast)
	}
	ctx, cancel := context.WithTimeout(ctx, longestWait)
	defer cancel()
	for ctx.Err() == nil {
		s.mu.Lock()
		arrived := len(s.calls)
		s.mu.Unlock()
		if arrived >= wanted {
			return
		}
		pause(ctx, 5*time.Millisecond)
	}
}

func (s *session) checkSent() (wrong []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sent) != len(s.Case.Sent) {
		return []string{fmt.Sprintf("the provider got %d calls, want %d: %q", len(s.sent), len(s.Case.Sent), s.sent)}
	}
	for i, want := range s.Case.Sent {
		if s.sent[i] != want {
			wrong = append(wrong, fmt.Sprintf("call %d of the provider: got %s, want %s", i+1, s.sent[i], want))
		}
	}
	return wrong
}
