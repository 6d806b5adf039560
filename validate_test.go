package earmark_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func valid() earmark.ReservationRequest {
	return earmark.ReservationRequest{Scopes: []string{"acme/ml/u1"}, Amounts: earmark.Amounts{"tokens": 1}}.WithDefaults()
}

func TestFormatQuantity(t *testing.T) {
	t.Parallel()
	require.Equal(t, "1 request + 337 tokens", earmark.Amounts{"requests": 1, "tokens": 337}.String())
	require.Equal(t, "1 gas + 1 input_token + 1 usd_micros", earmark.Amounts{"gas": 1, "input_tokens": 1, "usd_micros": 1}.String())
	require.Equal(t, "0 requests + 1,200 tokens", earmark.Amounts{"requests": 0, "tokens": 1200}.String())
}

func TestReservationRequestDefaults(t *testing.T) {
	t.Parallel()
	request := earmark.ReservationRequest{Scopes: []string{"a", "b", "a"}, Amounts: earmark.Amounts{"tokens": math.MaxInt64}}.WithDefaults()
	require.NoError(t, request.Validate())
	require.Equal(t, []string{"a", "b"}, request.Scopes)
	require.EqualValues(t, 300, request.TTLSeconds)
	require.Equal(t, earmark.OnExpiryRelease, request.OnExpiry)
}

// What breaks a rule is refused with the field that is to blame.
func TestReservationRequestIsRefused(t *testing.T) {
	t.Parallel()
	many := func(n int) map[string]string {
		metadata := map[string]string{}
		for i := range n {
			metadata[strings.Repeat("k", i+1)] = ""
		}
		return metadata
	}
	for field, breaks := range map[string][]func(*earmark.ReservationRequest){
		"scopes": {
			func(r *earmark.ReservationRequest) { r.Scopes = nil },
			func(r *earmark.ReservationRequest) { r.Scopes = strings.Split("a b c d e f g h i", " ") },
		},
		"scopes[0]": {
			func(r *earmark.ReservationRequest) { r.Scopes[0] = "" },
			func(r *earmark.ReservationRequest) { r.Scopes[0] = "/acme" },
			func(r *earmark.ReservationRequest) { r.Scopes[0] = "acme//u1" },
			func(r *earmark.ReservationRequest) { r.Scopes[0] = "acme/ü" },
			func(r *earmark.ReservationRequest) { r.Scopes[0] = "a/b/c/d/e/f/g/h/i" },
			func(r *earmark.ReservationRequest) { r.Scopes[0] = strings.Repeat("a", 64) },
		},
		"amounts": {
			func(r *earmark.ReservationRequest) { r.Amounts = nil },
			func(r *earmark.ReservationRequest) { r.Amounts = earmark.Amounts{"Tokens": 1} },
			func(r *earmark.ReservationRequest) {
				r.Amounts = earmark.Amounts{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1, "h": 1, "i": 1}
			},
		},
		"amounts.tokens": {
			func(r *earmark.ReservationRequest) { r.Amounts["tokens"] = -1 },
			func(r *earmark.ReservationRequest) { r.Amounts["tokens"] = math.MinInt64 },
		},
		"ttl_seconds": {
			func(r *earmark.ReservationRequest) { r.TTLSeconds = -1 },
			func(r *earmark.ReservationRequest) { r.TTLSeconds = 604801 },
		},
		"on_expiry": {func(r *earmark.ReservationRequest) { r.OnExpiry = "forget" }},
		"metadata": {
			func(r *earmark.ReservationRequest) { r.Metadata = many(21) },
			func(r *earmark.ReservationRequest) { r.Metadata = earmark.Metadata{"": "x"} },
		},
		"metadata.k": {
			func(r *earmark.ReservationRequest) { r.Metadata = earmark.Metadata{"k": "a\x00b"} },
			func(r *earmark.ReservationRequest) { r.Metadata = earmark.Metadata{"k": strings.Repeat("x", 513)} },
		},
	} {
		for i, change := range breaks {
			request := valid()
			change(&request)
			var e *earmark.Error
			require.ErrorAs(t, request.Validate(), &e, "%s, case %d", field, i)
			require.Equal(t, earmark.CodeInvalidRequest, e.Code)
			require.Equal(t, field, e.Field, "case %d: %s", i, e)
		}
	}
}

// TestTimezone accepts only names that mean the same on every machine.
func TestTimezone(t *testing.T) {
	t.Parallel()
	limit := int64(10)
	validate := func(name string) error {
		return earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit, Window: earmark.Window{Timezone: name}}.WithDefaults().Validate()
	}
	for _, name := range []string{
		"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "America/Port-au-Prince", "Asia/Calcutta", "Etc/UTC", "Etc/GMT+5",
	} {
		require.NoError(t, validate(name))
	}
	for _, name := range []string{
		"localtime", "posixrules", "Factory", "Local", "right/UTC", "right/Europe/Berlin", "posix/Europe/Berlin", "SystemV/EST5EDT",
		"CET", "EST", "EST5EDT", "GMT", "Z", "utc", "UTC+1", "+01:00", "<+01>-1", "Berlin", "Japan", "US/Eastern",
		"europe/berlin", "Europe/berlin", "Europe", "Europe/", "Europe//Berlin", "Europe/./Berlin", "Europe/../Europe/Berlin", "/Europe/Berlin",
		"Europe/Berlin ", "Europe/Berlin\n", "Mars/Olympus", "Europe/" + strings.Repeat("A", 58),
	} {
		var e *earmark.Error
		require.ErrorAs(t, validate(name), &e, name)
		require.Equal(t, "window.timezone", e.Field)
		require.ErrorContains(t, e, "such as Europe/Berlin, or UTC")
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	limit := int64(10)
	validate := func(w earmark.Window) error {
		return earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit, Window: w}.WithDefaults().Validate()
	}
	for _, w := range []earmark.Window{
		{Period: "minute"}, {Period: "year", Every: 1000}, {Period: "month", Anchor: "2024-02-29T23:59"}, {Period: "hour", Every: 5, Anchor: "1970-01-01T00:00"},
		{Period: "week", Anchor: "2199-12-31T00:00"}, {Period: "rolling", RollingSeconds: 60}, {Period: "rolling", RollingSeconds: 18000},
		{Period: "rolling", RollingSeconds: 31622400, Timezone: "Europe/Berlin"},
	} {
		require.NoError(t, validate(w), w)
	}
	for field, words := range map[string][]string{
		"window.anchor": {
			"2026-02-30T00:00", "2025-02-29T09:00", "2026-13-01T00:00", "2026-01-00T00:00", "2026-01-31T24:00", "2026-01-31T09:60",
			"2026-01-31", "2026-01-31T09", "2026-01-31 09:00", "2026-01-31T09:00:00", "2026-01-31T09:00Z", "2026-01-31T09:00+01:00", "1969-12-31T23:59",
			"2200-01-01T00:00", "3000-01-01T00:00", "26-01-31T09:00", "2026-1-31T9:00", "tomorrow",
		},
		"window.period": {"Day", "days", "quarter", "rolling "},
	} {
		for _, word := range words {
			w := earmark.Window{Period: "month", Anchor: word}
			if field == "window.period" {
				w = earmark.Window{Period: earmark.Period(word)}
			}
			var e *earmark.Error
			require.ErrorAs(t, validate(w), &e, word)
			require.Equal(t, field, e.Field, word)
		}
	}
	for _, c := range []struct {
		window earmark.Window
		field  string
	}{
		{earmark.Window{Period: "rolling"}, "window.rolling_seconds"},
		{earmark.Window{Period: "rolling", RollingSeconds: -60}, "window.rolling_seconds"},
		{earmark.Window{Period: "rolling", RollingSeconds: 59}, "window.rolling_seconds"},
		{earmark.Window{Period: "rolling", RollingSeconds: 61}, "window.rolling_seconds"},
		{earmark.Window{Period: "rolling", RollingSeconds: 31622460}, "window.rolling_seconds"},
		{earmark.Window{Period: "day", RollingSeconds: 60}, "window.rolling_seconds"},
		{earmark.Window{RollingSeconds: 60}, "window.rolling_seconds"},
		{earmark.Window{Period: "rolling", RollingSeconds: 60, Every: 2}, "window.every"},
		{earmark.Window{Period: "rolling", RollingSeconds: 60, Anchor: "2026-01-31T09:00"}, "window.anchor"},
	} {
		var e *earmark.Error
		require.ErrorAs(t, validate(c.window), &e, c.window)
		require.Equal(t, c.field, e.Field, c.window)
	}
	require.Equal(t, []string{"rolling 5h", "rolling 1m", "rolling 1h30m", "rolling 10m", "2 weeks", "month"}, []string{
		earmark.Window{Period: "rolling", RollingSeconds: 18000}.Length(), earmark.Window{Period: "rolling", RollingSeconds: 60}.Length(),
		earmark.Window{Period: "rolling", RollingSeconds: 5400}.Length(), earmark.Window{Period: "rolling", RollingSeconds: 600}.Length(),
		earmark.Window{Period: "week", Every: 2}.Length(), earmark.Window{Period: "month"}.Length(),
	})
	for _, every := range []int64{-1, 1001} {
		require.ErrorContains(t, validate(earmark.Window{Period: "day", Every: every}), "1 to 1000 are allowed")
	}
	require.Error(t, earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit, Window: earmark.Window{Period: "day", Timezone: "UTC"},
		Enforcement: earmark.EnforcementHard, Overage: earmark.OverageReject}.Validate(), "0 is not allowed in a request whose defaults are filled")
}

func TestBudgetRequest(t *testing.T) {
	t.Parallel()
	limit, below, above := int64(10), int64(9), int64(11)
	base := earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit}.WithDefaults()
	require.NoError(t, base.Validate())
	require.Equal(t, earmark.Window{Period: earmark.PeriodLifetime, Timezone: "UTC", Every: 1}, base.Window)
	for field, change := range map[string]func(*earmark.BudgetRequest){
		"scope":           func(r *earmark.BudgetRequest) { r.Scope = "a b" },
		"unit":            func(r *earmark.BudgetRequest) { r.Unit = "9" },
		"limit":           func(r *earmark.BudgetRequest) { r.Limit = nil },
		"window.period":   func(r *earmark.BudgetRequest) { r.Window.Period = "decade" },
		"window.every":    func(r *earmark.BudgetRequest) { r.Window.Every = 2 }, // of a lifetime
		"window.anchor":   func(r *earmark.BudgetRequest) { r.Window.Anchor = "2026-01-31T09:00" },
		"window.timezone": func(r *earmark.BudgetRequest) { r.Window.Timezone = "Local" },
		"enforcement":     func(r *earmark.BudgetRequest) { r.Enforcement = "firm" },
		"overage":         func(r *earmark.BudgetRequest) { r.Overage = "ask" },
		"soft_ceiling":    func(r *earmark.BudgetRequest) { r.SoftCeiling = &above }, // of a hard budget
	} {
		request := base
		change(&request)
		var e *earmark.Error
		require.ErrorAs(t, request.Validate(), &e, field)
		require.Equal(t, field, e.Field)
	}
	soft := base
	soft.Enforcement, soft.SoftCeiling = earmark.EnforcementSoft, &below
	require.ErrorContains(t, soft.Validate(), "below the limit")
	soft.SoftCeiling = &above
	require.NoError(t, soft.Validate())
}

// The hash differs for requests that mean different things, and for no others.
func TestRequestHash(t *testing.T) {
	t.Parallel()
	request := earmark.ReservationRequest{Scopes: []string{"a", "b"}, Amounts: earmark.Amounts{"x": 1, "y": 2}}.WithDefaults()
	turned := request
	turned.Scopes = []string{"b", "a"}
	require.Equal(t, request.Hash(), turned.Hash())
	require.Equal(t, []string{"b", "a"}, turned.Scopes, "hashing changes nothing")
	other := request
	other.TTLSeconds++
	require.NotEqual(t, request.Hash(), other.Hash())
	usage := earmark.UsageRequest{Scopes: request.Scopes, Amounts: request.Amounts}
	require.NotEqual(t, request.Hash(), usage.Hash())
}

func TestIDs(t *testing.T) {
	t.Parallel()
	id := earmark.ReservationID("default", "key")
	require.Equal(t, id, earmark.ReservationID("default", "key"))
	require.NotEqual(t, id, earmark.ReservationID("defaultk", "ey"), "the parts do not run together")
	require.True(t, earmark.IsReservationID(id))
	require.True(t, earmark.IsReservationID(earmark.NewReservationID()))
	require.True(t, earmark.IsBudgetID(earmark.NewBudgetID()))
	for _, not := range []string{"", "rsv_", "rsv_abc", id + "a", strings.ToUpper(id), earmark.NewBudgetID()} {
		require.False(t, earmark.IsReservationID(not), not)
	}
	require.Equal(t, []string{"acme", "acme/ml", "acme/ml/u1"}, earmark.ScopePaths("acme/ml/u1"))
}

func TestFormatAmount(t *testing.T) {
	t.Parallel()
	for n, text := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", math.MinInt64: "-9,223,372,036,854,775,808"} {
		require.Equal(t, text, earmark.FormatAmount(n))
	}
	require.Equal(t, "1,200 tokens + 5 usd_micros", earmark.Amounts{"usd_micros": 5, "tokens": 1200}.String())
}

func TestErrorCode(t *testing.T) {
	t.Parallel()
	require.Empty(t, earmark.ErrorCode(nil))
	require.Equal(t, earmark.CodeInternal, earmark.ErrorCode(errors.New("bug")))
	cause := errors.New("cause")
	err := earmark.Errorf(earmark.CodeUnavailable, "away: %w", cause)
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(errors.Join(errors.New("first"), err)))
	require.ErrorIs(t, err, cause)
}

func TestValidateThresholds(t *testing.T) {
	t.Parallel()
	percent := func(n int64, of string) earmark.Threshold { return earmark.Threshold{Percent: n, Of: of} }
	require.NoError(t, earmark.ValidateThresholds("thresholds", []earmark.Threshold{percent(1, earmark.ThresholdOfUsed), percent(100, earmark.ThresholdOfCommitted), {Amount: 1, Of: earmark.ThresholdOfUsed}}))
	many := make([]earmark.Threshold, earmark.MaxThresholds+1)
	for i := range many {
		many[i] = percent(int64(i+1), earmark.ThresholdOfUsed)
	}
	for field, wrong := range map[string][]earmark.Threshold{
		"thresholds":            many,
		"thresholds[0]":         {{Of: earmark.ThresholdOfUsed}},
		"thresholds[1]":         {percent(5, earmark.ThresholdOfUsed), {Percent: 5, Amount: 5, Of: earmark.ThresholdOfUsed}},
		"thresholds[0].percent": {percent(101, earmark.ThresholdOfUsed)},
		"thresholds[0].amount":  {{Amount: -1, Of: earmark.ThresholdOfUsed}},
		"thresholds[0].of":      {percent(5, "")},
		"thresholds[2]":         {percent(5, earmark.ThresholdOfUsed), percent(5, earmark.ThresholdOfCommitted), percent(5, earmark.ThresholdOfUsed)},
	} {
		var refused *earmark.Error
		require.ErrorAs(t, earmark.ValidateThresholds("thresholds", wrong), &refused, field)
		require.Equal(t, earmark.CodeInvalidRequest, refused.Code)
		require.Equal(t, field, refused.Field)
	}
}
