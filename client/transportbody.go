package client

import (
	"bytes"
	"context"
	"io"
	"sync"
)

// streamBody passes a stream of events on as it comes, but for the event of the usage if the
// caller did not ask for it. The call ends with the stream, before its reader learns of the
// end; or when the reader closes it; or when the request is cancelled.
type streamBody struct {
	source    io.ReadCloser
	call      *guardedCall
	hideUsage bool

	// Of Read alone.
	shown  []byte // to be read
	err    error  // after that
	hiding bool   // the event that was read last

	mu       sync.Mutex // of what follows: the context may end while Read waits
	stop     func() bool
	splitter eventSplitter
	reader   streamReader
}

// Read returns what has come before it settles: the last bytes may come with the end, and
// do not wait for the commit.
func (s *streamBody) Read(p []byte) (n int, err error) {
	for len(s.shown) == 0 {
		if s.err != nil {
			s.finish() // mutation: before-the-end
			return 0, s.err
		}
		if !s.hideUsage {
			n, s.err = s.source.Read(p)
			s.observe(p[:n], s.err)
			if n > 0 || len(p) == 0 {
				return n, nil
			}
			continue
		}
		chunk := make([]byte, max(len(p), bytes.MinRead))
		n, s.err = s.source.Read(chunk)
		s.shown = s.observe(chunk[:n], s.err)
	}
	n = copy(p, s.shown)
	s.shown = s.shown[n:]
	return n, nil
}

// observe reads the usage of a chunk, and returns what the caller may see of the events that
// are complete, or of all that has come if err ends the stream.
func (s *streamBody) observe(chunk []byte, err error) (shown []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.splitter.push(chunk)
	if err != nil {
		if rest := s.splitter.rest(); len(rest) > 0 {
			events = append(events, rest)
		}
	}
	for _, event := range events {
		data := dataOf(event)
		s.reader.push(data)
		if len(event) > 1 { // one byte is an empty line, and goes with the event before it
			s.hiding = s.hideUsage && isUsageEvent(data)
		}
		if s.hideUsage && !s.hiding {
			shown = append(shown, event...)
		}
	}
	return shown
}

// Close ends the call.
func (s *streamBody) Close() error {
	err := s.source.Close()
	s.finish()
	return err
}

// watch ends the call with ctx: the caller may never read again.
func (s *streamBody) watch(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop = context.AfterFunc(ctx, s.finish) // mutation: caller-left
}

func (s *streamBody) finish() {
	s.mu.Lock()
	counts := s.reader.counts()
	s.stop()
	s.mu.Unlock()
	s.call.end(ending{counts: counts, answered: true})
}

// wholeBody passes an answer on that is a stream, but not of events, such as Gemini's list.
// Its usage is known when it has ended.
type wholeBody struct {
	source io.ReadCloser
	call   *guardedCall
	mu     sync.Mutex
	stop   func() bool
	read   bytes.Buffer
}

func (w *wholeBody) Read(p []byte) (int, error) {
	n, err := w.source.Read(p)
	w.mu.Lock()
	if w.read.Len() <= maxCallBytes { // what is longer is no JSON then, and its usage unknown
		w.read.Write(p[:n])
	}
	w.mu.Unlock()
	if err != nil {
		w.finish()
	}
	return n, err
}

// Close ends the call.
func (w *wholeBody) Close() error {
	err := w.source.Close()
	w.finish()
	return err
}

func (w *wholeBody) watch(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop = context.AfterFunc(ctx, w.finish)
}

func (w *wholeBody) finish() {
	w.mu.Lock()
	w.stop()
	counts := countsOf(w.call.call.API, w.read.Bytes())
	w.mu.Unlock()
	w.call.end(ending{counts: counts, answered: true})
}
