package pricing

import (
	"encoding/json"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseDecimal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0": "0", "0.0": "0", "0e5": "0", "1": "1", "10": "10", "1.50": "1.5", "2.5e-06": "0.0000025", "2.5E-6": "0.0000025", "1e3": "1000",
		"0.0005666666666666667": "0.0005666666666666667", "1.0000000000000001e-07": "0.00000010000000000000001", "999999999999999999": "999999999999999999",
		"000.5": "0.5", "1e-36": "0.000000000000000000000000000000000001", "12.5e1": "125", "1.25e1": "12.5",
	} {
		d, err := ParseDecimal(text)
		require.NoError(t, err, text)
		require.Equal(t, want, d.String(), text)
	}
	for _, text := range []string{"", "-1", "+1", "1.", ".5", "e5", "1e", "1e1000", "0x1", "1,5", "NaN", "Inf", "1_0", "9999999999999999999", "1e-37", "1e18", " 1", "0-", "0.-"} {
		_, err := ParseDecimal(text)
		require.Error(t, err, text)
	}
}

func TestDecimalJSON(t *testing.T) {
	t.Parallel()
	var rates Rates
	require.NoError(t, json.Unmarshal([]byte(`{"input": 2.5e-06, "output": "0.00001", "reasoning": {"as": "output"}}`), &rates))
	require.Equal(t, Rates{Input: USD("0.0000025"), Output: USD("0.00001"), Reasoning: As(Output)}, rates)
	text, err := json.Marshal(rates)
	require.NoError(t, err)
	require.JSONEq(t, `{"input": "0.0000025", "output": "0.00001", "reasoning": {"as": "output"}}`, string(text))
	for _, bad := range []string{`{"input": -1}`, `{"input": true}`, `{"input": "x"}`, `{"input": {}}`, `{"input": []}`} {
		require.Error(t, json.Unmarshal([]byte(bad), &rates), bad)
	}
}

// The sum is that of big.Rat, whatever is added.
func TestSum(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		s, want := new(sum), new(big.Rat)
		for range rapid.IntRange(0, 12).Draw(r, "terms") {
			d := Decimal{rapid.Uint64Range(0, 999999999999999999).Draw(r, "digits"), uint8(rapid.IntRange(0, maxScale).Draw(r, "scale"))}
			n, shift := rapid.Uint64Range(0, 1<<53).Draw(r, "n"), rapid.IntRange(0, 3).Draw(r, "shift")
			s.add(n, d, shift)
			term, _ := new(big.Rat).SetString(d.String())
			term.Mul(term, new(big.Rat).SetFrac(new(big.Int).SetUint64(n), power(shift)))
			want.Add(want, term)
		}
		if rapid.Bool().Draw(r, "multiplied") {
			s.multiply(MustDecimal("1.05"))
			want.Mul(want, big.NewRat(105, 100))
		}
		got, _ := new(big.Rat).SetString(s.String())
		require.Zero(r, want.Cmp(got))

		micros := new(big.Rat).Mul(want, big.NewRat(1_000_000, 1))
		floor := new(big.Int).Div(micros.Num(), micros.Denom())
		rest := new(big.Rat).Sub(micros, new(big.Rat).SetInt(floor))
		for up, goesUp := range map[bool]bool{true: rest.Sign() > 0, false: rest.Cmp(big.NewRat(1, 2)) >= 0} {
			rounded := new(big.Int).Set(floor)
			if goesUp {
				rounded.Add(rounded, big.NewInt(1))
			}
			n, err := s.micros(up)
			require.Equal(r, !rounded.IsInt64(), err != nil)
			if err == nil {
				require.Equal(r, rounded.Int64(), n)
			}
		}
		again, _ := new(big.Rat).SetString(s.String()) // rounding leaves the sum alone
		require.Zero(r, want.Cmp(again))
	})
}
