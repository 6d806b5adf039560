package invoice

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func read(t *testing.T, text string, columns *Columns, rename map[string]string) *Invoice {
	t.Helper()
	v, err := Read(strings.NewReader(text), columns, time.UTC, rename)
	require.NoError(t, err)
	return v
}

// The columns are those that the providers' consoles export.
func TestKnownExports(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text string
		unit string
		want []Difference
	}{
		"OpenAI costs": {"start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,project_id\n" +
			"1759622400,1759708800,2025-10-05T00:00:00+00:00,2025-10-06T00:00:00+00:00,0.8958745,usd,\"gpt-5-mini-2025-08-07, input\",p\n" +
			"1759622400,1759708800,2025-10-05T00:00:00+00:00,2025-10-06T00:00:00+00:00,1e-6,usd,\"gpt-5-mini-2025-08-07, output\",p\n" +
			"1759968000,1760054400,2025-10-09T00:00:00+00:00,2025-10-10T00:00:00+00:00,,,,\n",
			UnitCost, []Difference{{"2025-10-05", "gpt-5-mini-2025-08-07", 895_876, 0, 895_876}}},
		"OpenAI usage": {"start_time,end_time,start_time_iso,end_time_iso,num_model_requests,model,input_tokens,output_tokens,input_cached_tokens\n" +
			"1,2,2025-10-05T00:00:00+00:00,2025-10-06T00:00:00+00:00,3,gpt-5-mini,100,20,90\n",
			UnitTokens, []Difference{{"2025-10-05", "gpt-5-mini", 120, 0, 120}}},
		"Anthropic costs": {"\ufeffusage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type\n" +
			"2026-08-04,Claude Haiku 4.5,Default,k,message,≤ 200k,input_no_cache,0.05,0.05,token\n" +
			"2026-08-04,Claude Haiku 4.5,Default,k,message,≤ 200k,output,0.02,0.02,token\n",
			UnitCost, []Difference{{"2026-08-04", "claude-haiku-4-5", 70_000, 0, 70_000}}},
		"Anthropic usage": {"usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m," +
			"usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,web_search_count\n" +
			"2026-08-05,claude-opus-5,k,Default,standard,≤ 200k,1,2,4,8,16,99\n",
			UnitTokens, []Difference{{"2026-08-05", "claude-opus-5", 31, 0, 31}}},
	} {
		v := read(t, test.text, nil, map[string]string{"Claude Haiku 4.5": "claude-haiku-4-5"})
		require.Empty(t, v.Errors, name)
		require.Equal(t, test.unit, v.Unit, name)
		require.Equal(t, test.want, v.Compare(nil), name)
	}
}

// A row that cannot be read is named by its line and column; the others count.
func TestUnreadableRows(t *testing.T) {
	t.Parallel()
	columns, err := ParseColumns("day=d,model=m,cost=c")
	require.NoError(t, err)
	v := read(t, "d,m,c\n2026-05-01,a,1\nyesterday,a,1\n2026-05-01,a,1/3\n2026-05-01,a,0x10\n2026-05-01,\"b\nb\",2\n2026-05-01,a,1e99999\n", &columns, nil)
	var errors []string
	for _, err := range v.Errors {
		errors = append(errors, err.Error())
	}
	require.Equal(t, []string{
		`line 3, column d: "yesterday" is not a day such as 2026-05-31, or a moment such as 2026-05-31T00:00:00+00:00`,
		`line 4, column c: "1/3" is not an amount in dollars, such as 12.5`,
		`line 5, column c: "0x10" is not an amount in dollars, such as 12.5`,
		`line 8, column c: "1e99999" is not an amount in dollars, such as 12.5`,
	}, errors)
	require.Equal(t, []Difference{{"2026-05-01", "a", 1_000_000, 999_998, 2}, {"2026-05-01", "b\nb", 2_000_000, 0, 2_000_000}, {"2026-05-02", "a", 0, 7, -7}},
		v.Compare(map[Line]int64{{"2026-05-01", "a"}: 999_998, {"2026-05-02", "a"}: 7}))
}

func TestUnknownColumns(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "day=d", "day=d,model=m", "day=d,model=m,cost=c,tokens=t", "day=d,model=m,price=c", "day,model=m,cost=c"} {
		_, err := ParseColumns(text)
		require.Error(t, err, text)
	}
	_, err := Read(strings.NewReader("a,b\n"), nil, time.UTC, nil)
	require.ErrorContains(t, err, "it has a, b")
	_, err = Read(strings.NewReader("a,b\n"), &Columns{Day: "a", Model: "b", Cost: "c"}, time.UTC, nil)
	require.ErrorContains(t, err, `no column "c"`)
	_, err = Read(strings.NewReader(""), nil, time.UTC, nil)
	require.ErrorContains(t, err, "empty")
}

func TestMomentsArePutIntoTheZone(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	v, err := Read(strings.NewReader("d,m,t\n2026-05-01T22:30:00Z,a,5\n"), &Columns{Day: "d", Model: "m", Tokens: []string{"t"}}, berlin, nil)
	require.NoError(t, err)
	require.Equal(t, []Difference{{"2026-05-02", "a", 5, 0, 5}}, v.Compare(nil))
}
