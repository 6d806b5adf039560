#!/usr/bin/env bash
# Go: ReverseProxy cuts some answers of a provider that begins to answer before it has read the whole request.
# Guess:  a proxy passes both directions on as they come; an answer that the provider sent whole arrives whole.
# Seen:   once the answer begins, Go's server takes what is left of the body away from the proxy. If that wins, the connection to the
#         provider breaks: the caller has seen 200 and gets "unexpected EOF", and the provider may bill the call. Some percent of 1,000
#         calls; none after EnableFullDuplex on the answer's writer (golang/go#40747).
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
cat >go.mod <<'MOD'
module try

go 1.26
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"time"
)

const calls = 1_000

var begun = make(chan bool, 1) // the provider has begun to answer

func main() {
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := http.NewResponseController(w)
		answer.EnableFullDuplex()
		answer.Flush()
		begun <- true
		read, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "read %d bytes, error: %v", len(read), err)
	}))
	target, _ := url.Parse(provider.URL)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	plain := httptest.NewServer(proxy)
	duplex := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		proxy.ServeHTTP(w, r)
	}))
	fmt.Println(runtime.Version())
	changed := false
	for _, way := range []struct {
		name, url string
		cuts      bool
	}{{"without a proxy", provider.URL, false}, {"ReverseProxy", plain.URL, true}, {"ReverseProxy and EnableFullDuplex", duplex.URL, false}} {
		cut, last := 0, ""
		for range calls {
			if got := call(way.url); got != "200, read 20 bytes, error: <nil>" {
				cut, last = cut+1, got
			}
		}
		fmt.Printf("%-34s %d of %d cut  %s\n", way.name, cut, calls, last)
		changed = changed || (cut > 0) != way.cuts || cut > 0 && last != "200, unexpected EOF"
	}
	if changed {
		fmt.Println("CHANGED: other answers are cut")
		os.Exit(1)
	}
}

// call sends ten bytes, and ten more when the provider has begun to answer.
func call(url string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	body, rest := io.Pipe()
	defer context.AfterFunc(ctx, func() { rest.CloseWithError(ctx.Err()) })()
	go func() {
		io.WriteString(rest, "0123456789")
		<-begun
		io.WriteString(rest, "0123456789")
		rest.Close()
	}()
	request, _ := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Sprintf("%d, %v", response.StatusCode, err)
	}
	return fmt.Sprintf("%d, %s", response.StatusCode, text)
}
GO
go run .
