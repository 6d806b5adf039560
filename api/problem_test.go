package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestAsError(t *testing.T) {
	t.Parallel()
	known := earmark.Errorf(earmark.CodeNoBudget, "none")
	for _, test := range []struct {
		err  error
		code earmark.Code
	}{
		{known, earmark.CodeNoBudget},
		{fmt.Errorf("wrapped: %w", known), earmark.CodeNoBudget},
		{errors.New("other"), earmark.CodeInternal},
		{earmark.Errorf("made_up", "no such code"), earmark.CodeInternal},
		{context.Canceled, earmark.CodeUnavailable},
		{fmt.Errorf("query: %w", context.DeadlineExceeded), earmark.CodeUnavailable},
	} {
		require.Equal(t, test.code, asError(test.err).Code, test.err)
	}
}

func TestWholeSecondsRoundUp(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		time.Nanosecond: "1", time.Second: "1", time.Second + 1: "2", 1500 * time.Millisecond: "2", time.Minute: "60",
	} {
		require.Equal(t, want, wholeSeconds(d))
	}
}

func TestEveryCodeHasWords(t *testing.T) {
	t.Parallel()
	for code, words := range problems {
		require.NotEmpty(t, words.title, code)
		require.NotEmpty(t, http.StatusText(words.status), code)
		require.Equal(t, words.status >= 500, words.detail != "", "%s: a 5xx alone has inner faults to hide", code)
	}
}
