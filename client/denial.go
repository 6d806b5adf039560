package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

// refused is the body of a Transport's own answer: a problem of the API, and beside it the
// error in the form that the SDKs of providers read.
type refused struct {
	Type   string       `json:"type,omitempty"`
	Title  string       `json:"title,omitempty"`
	Status int          `json:"status,omitempty"`
	Detail string       `json:"detail,omitempty"`
	Code   earmark.Code `json:"code"`
	*denialBody
	Error refusedError `json:"error"`
}

type refusedError struct {
	Message string       `json:"message"`
	Type    string       `json:"type"`
	Code    earmark.Code `json:"code"`
	Param   *string      `json:"param"`
	*denialBody
}

type denialBody struct {
	Violations []earmark.Violation `json:"violations"`
	Retryable  bool                `json:"retryable"`
	RetryAt    *time.Time          `json:"retry_at,omitempty"`
}

// answerTo answers the SDK in the provider's place; nil if the error is not Earmark's, such
// as the end of the request's context.
func answerTo(r *http.Request, err error) *http.Response {
	var e *earmark.Error
	if r.Context().Err() != nil || errors.Is(err, context.Canceled) || !errors.As(err, &e) {
		return nil
	}
	status := http.StatusBadRequest
	switch e.Code {
	case earmark.CodeBudgetExceeded:
		return refusal(r, http.StatusPaymentRequired, e)
	case earmark.CodeUnavailable, earmark.CodeAdmissionUnknown:
		status = http.StatusServiceUnavailable
	case earmark.CodeRateLimited:
		status = http.StatusTooManyRequests
	case earmark.CodeUnauthenticated:
		status = http.StatusUnauthorized
	case earmark.CodeForbidden:
		status = http.StatusForbidden
	default:
	}
	named := *e
	named.Message, named.Field = "Earmark: "+e.Error(), ""
	return refusal(r, status, &named)
}

// refusal is an answer that SDKs do not repeat.
func refusal(r *http.Request, status int, e *earmark.Error) *http.Response {
	body := refused{Code: e.Code, Error: refusedError{Message: e.Error(), Type: "earmark", Code: e.Code}}
	if e.Code == earmark.CodeBudgetExceeded {
		body.Type, body.Title, body.Status, body.Detail = problemTypePrefix+string(e.Code), denialTitle, status, e.Error()
		body.denialBody = &denialBody{Violations: e.Violations, Retryable: e.Retryable, RetryAt: e.RetryAt}
		body.Error.denialBody = body.denialBody
	}
	raw, err := json.Marshal(body)
	if err != nil {
		panic("client: a refusal did not encode: " + err.Error()) // plain fields always encode
	}
	header := http.Header{}
	header.Set("Content-Type", refusalContentType)
	header.Set(shouldRetryHeader, "false") // mutation: refused-once
	if e.RetryAfter > 0 {
		header.Set("Retry-After", strconv.FormatInt(wholeSeconds(e.RetryAfter), 10))
	}
	return &http.Response{
		Status: strconv.Itoa(status) + " " + http.StatusText(status), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(raw)), ContentLength: int64(len(raw)), Request: r,
	}
}

// DenialOf returns the denial in an error of Earmark's client, or of a provider's SDK whose
// call a Transport or a gateway refused: its Violations say where the call did not fit. It
// returns nil for every other error.
func DenialOf(err error) *earmark.Error {
	if err == nil {
		return nil
	}
	var e *earmark.Error
	if errors.As(err, &e) {
		if e.Code != earmark.CodeBudgetExceeded {
			return nil
		}
		return e
	}
	// The SDKs of OpenAI and Anthropic keep the error of an answer as JSON, others have it in
	// their text alone, with their own words around it.
	const mostObjects = 16
	text := err.Error()
	var raw interface{ RawJSON() string }
	if errors.As(err, &raw) {
		text = raw.RawJSON()
	}
	if !strings.Contains(text, string(earmark.CodeBudgetExceeded)) {
		return nil
	}
	for range mostObjects {
		start := strings.IndexByte(text, '{')
		if start < 0 {
			return nil
		}
		text = text[start:]
		var found denialText
		if json.NewDecoder(strings.NewReader(text)).Decode(&found) == nil {
			if denied := found.denied(); denied != nil {
				return denied
			}
		}
		text = text[1:]
	}
	return nil
}

// denialText is a denial in the text of an error: a whole answer, or the error inside.
type denialText struct {
	Code       earmark.Code        `json:"code"`
	Message    string              `json:"message"`
	Detail     string              `json:"detail"`
	Violations []earmark.Violation `json:"violations"`
	Retryable  bool                `json:"retryable"`
	RetryAt    *time.Time          `json:"retry_at"`
	Error      *denialText         `json:"error"`
}

func (d denialText) denied() *earmark.Error {
	switch {
	case d.Code == earmark.CodeBudgetExceeded && d.Violations != nil:
		e := earmark.Errorf(d.Code, "%s", cmp.Or(d.Detail, d.Message))
		e.Violations, e.Retryable, e.RetryAt = d.Violations, d.Retryable, d.RetryAt
		if e.RetryAt != nil {
			e.RetryAfter = max(0, time.Until(*e.RetryAt))
		}
		return e
	case d.Error != nil:
		return d.Error.denied()
	}
	return nil
}
