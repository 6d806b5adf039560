package lifecycle

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Without decisions fewer and fewer admissions are under way, down to 4; decisions bring them back.
func TestPace(t *testing.T) {
	t.Parallel()
	var p pace
	require.Equal(t, int64(1), p.weight())
	for _, want := range []int64{2, 4, 8, 8} {
		p.undecided()
		require.Equal(t, want, p.weight())
	}
	for weight := int64(8); weight > 1; weight /= 2 {
		for range maxAdmissions/weight - 1 {
			p.decided()
			require.Equal(t, weight, p.weight())
		}
		p.decided()
		require.Equal(t, weight/2, p.weight())
	}
	for range 1000 {
		p.decided()
	}
	p.undecided()
	require.Equal(t, int64(2), p.weight())
}
