package conformance

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Server serves the cases to the runners of all languages, and is the other side of each
// case. It is an http.Handler.
type Server struct {
	base     string
	upstream string
	cases    []Case
	mux      *http.ServeMux

	mu       sync.Mutex
	sessions map[string]*session
}

// NewServer returns the server that runners reach at base, a URL without a trailing slash.
// upstream is the URL of an Earmark without keys, for the cases that need one; empty leaves
// those out.
func NewServer(base, upstream string) (*Server, error) {
	all, err := Cases()
	if err != nil {
		return nil, err
	}
	s := &Server{base: base, upstream: upstream, mux: http.NewServeMux(), sessions: map[string]*session{}}
	for _, c := range all {
		if !c.Real || upstream != "" {
			s.cases = append(s.cases, c)
		}
	}
	s.mux.HandleFunc("GET /control/cases", s.list)
	s.mux.HandleFunc("POST /control/sessions", s.begin)
	s.mux.HandleFunc("POST /control/sessions/{id}/finish", s.finish)
	s.mux.HandleFunc("/sessions/{id}/", s.play)
	s.mux.HandleFunc("/providers/{id}/", s.provide)
	return s, nil
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	names, transports := []string{}, []string{}
	for _, c := range s.cases {
		if c.Transport != nil {
			transports = append(transports, c.Name)
		} else {
			names = append(names, c.Name)
		}
	}
	respond(w, http.StatusOK, map[string]any{"cases": names, "transport_cases": transports})
}

func (s *Server) begin(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Case string `json:"case"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		refuse(w, err)
		return
	}
	for _, c := range s.cases {
		if c.Name != asked.Case {
			continue
		}
		begun, err := newSession(r.Context(), c, s.upstream)
		if err != nil {
			refuse(w, err)
			return
		}
		id := s.add(begun)
		about := map[string]any{"id": id, "url": s.base + "/sessions/" + id, "client": begun.Case.Client, "steps": begun.Case.Steps}
		if c.Transport != nil {
			about["transport"], about["provider_url"] = begun.Case.Transport, s.base+"/providers/"+id
		}
		if c.ProviderAway {
			if about["provider_url"], err = closedURL(r.Context()); err != nil {
				refuse(w, err)
				return
			}
		}
		respond(w, http.StatusCreated, about)
		return
	}
	refuse(w, errors.New("there is no case "+strconv.Quote(asked.Case)))
}

func (s *Server) add(begun *session) (id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id = strconv.Itoa(len(s.sessions) + 1)
	s.sessions[id] = begun
	return id
}

func (s *Server) find(id string) (*session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.sessions[id]
	return found, ok
}

func (s *Server) finish(w http.ResponseWriter, r *http.Request) {
	var report struct {
		Results []map[string]any `json:"results"`
	}
	found, ok := s.find(r.PathValue("id"))
	if !ok {
		refuse(w, errors.New("there is no such session"))
		return
	}
	if err := json.NewDecoder(r.Body).Decode(&report); err != nil {
		refuse(w, err)
		return
	}
	respond(w, http.StatusOK, map[string]any{"failures": append([]string{}, found.check(r.Context(), report.Results)...)})
}

func (s *Server) play(w http.ResponseWriter, r *http.Request) {
	found, ok := s.find(r.PathValue("id"))
	if !ok {
		refuse(w, errors.New("there is no such session"))
		return
	}
	http.StripPrefix("/sessions/"+r.PathValue("id"), found).ServeHTTP(w, r)
}

func (s *Server) provide(w http.ResponseWriter, r *http.Request) {
	found, ok := s.find(r.PathValue("id"))
	if !ok {
		refuse(w, errors.New("there is no such session"))
		return
	}
	found.provide(w, r)
}

func refuse(w http.ResponseWriter, err error) {
	respond(w, http.StatusBadRequest, map[string]any{"error": err.Error()})
}

func respond(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the runner sees an answer that is cut off
}

// NewHTTPServer returns a server of handler that closes each connection after its answer: a
// client's HTTP library then never repeats a call by itself, and every call that arrives is
// the client's own.
func NewHTTPServer(handler http.Handler) *http.Server {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	server.SetKeepAlivesEnabled(false)
	return server
}
