package earmark_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestRates(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]earmark.Rate{
		"": {}, "50/s": {Calls: 50, Window: time.Second}, "1/m": {Calls: 1, Window: time.Minute}, "1000000/s": {Calls: earmark.MaxRateCalls, Window: time.Second},
	} {
		rate, err := earmark.ParseRate(text)
		require.NoError(t, err, text)
		require.Equal(t, want, rate)
		document, err := json.Marshal(rate)
		require.NoError(t, err)
		require.JSONEq(t, `"`+text+`"`, string(document))
		var read earmark.Rate
		require.NoError(t, json.Unmarshal(document, &read))
		require.Equal(t, want, read)
	}
	for _, text := range []string{"50", "/s", "0/s", "-1/s", "+5/s", "05/s", "5/h", "5/ s", "5/", "1.5/s", "1000001/m", "99999999999/s", "5/s/s", " 5/s", "s"} {
		_, err := earmark.ParseRate(text)
		require.ErrorContains(t, err, "rate: ", text)
		require.ErrorContains(t, err, "50/s or 3000/m", text)
		require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err))
	}
	for _, rate := range []earmark.Rate{{Calls: 5}, {Calls: -1, Window: time.Second}, {Calls: 5, Window: time.Hour}, {Window: time.Second}, {Calls: 1_000_001, Window: time.Minute}} {
		err := earmark.KeyRequest{Role: earmark.RoleRead, Rate: rate}.Validate(time.Now())
		require.ErrorContains(t, err, "rate: ", "%+v", rate)
	}
}
