#!/usr/bin/env bash
# openai-go: the text of an error says neither what was wrong nor its code.
# Guess:  err.Error() has the message of the answer, as that of the SDKs for JavaScript and Python has.
# Seen:   "OpenAI API error: 402 Payment Required"; message and code are only in the fields of *openai.Error and in RawJSON(), and there only
#         from a member "error" of the body. An answer as problem+json leaves all of them empty.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
cat >go.mod <<'MOD'
module try

go 1.24

require github.com/openai/openai-go/v3 v3.99.0
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime/debug"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

func ask(body string) (text string, e *openai.Error) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusPaymentRequired)
		fmt.Fprint(w, body)
	}))
	defer server.Close()
	client := openai.NewClient(option.WithAPIKey("none"), option.WithBaseURL(server.URL))
	_, err := client.Chat.Completions.New(context.Background(), openai.ChatCompletionNewParams{
		Model: "m", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Is it?")},
	})
	if !errors.As(err, &e) {
		panic(err)
	}
	return err.Error(), e
}

func main() {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/openai/openai-go/v3" {
			fmt.Println("openai-go", module.Version)
		}
	}
	text, e := ask(`{"error":{"message":"the budget is spent","type":"gateway","code":"budget_exceeded"}}`)
	fmt.Printf("with an error object: %q; Code %q, Message %q\n", text, e.Code, e.Message)
	problemText, problem := ask(`{"code":"budget_exceeded","detail":"the budget is spent"}`)
	fmt.Printf("as problem+json:      %q; Code %q, RawJSON %q\n", problemText, problem.Code, problem.RawJSON())
	const bare = "OpenAI API error: 402 Payment Required"
	if text != bare || e.Code != "budget_exceeded" || problemText != bare || problem.Code != "" || problem.RawJSON() != "" {
		fmt.Println("CHANGED: the error says something else")
		os.Exit(1)
	}
}
GO
go mod tidy 2>/dev/null
go run .
