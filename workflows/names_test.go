package workflows_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/workflows"
)

// The names of two installations differ, and each is read back as what it was made of.
func TestPrefixedNames(t *testing.T) {
	t.Parallel()
	const id = "rsv_a"
	for prefix, want := range map[workflows.Prefix][3]string{
		"":               {"earmark", "earmark-reconcile", "reservation-rsv_a"},
		"staging":        {"staging-earmark", "staging-earmark-reconcile", "staging-reservation-rsv_a"},
		"earmark":        {"earmark-earmark", "earmark-earmark-reconcile", "earmark-reservation-rsv_a"},
		"reservation-eu": {"reservation-eu-earmark", "reservation-eu-earmark-reconcile", "reservation-eu-reservation-rsv_a"},
	} {
		require.NoError(t, prefix.Validate())
		require.Equal(t, want, [3]string{prefix.TaskQueue(), prefix.ReconcileScheduleID(), prefix.ReservationWorkflowID(id)})
		require.Equal(t, id, prefix.ReservationOf(want[2]))
		require.Equal(t, prefix, workflows.PrefixOf(want[0]))
	}
	require.Equal(t, workflows.Prefix(""), workflows.PrefixOf("default-test-taskqueue"))
	for _, wrong := range []workflows.Prefix{"Staging", "-a", "a-", "a--b", "a_b", "a'b", "ä", workflows.Prefix(strings.Repeat("a", workflows.MaxPrefixBytes+1))} {
		require.ErrorContains(t, wrong.Validate(), "is not a prefix", wrong)
	}
}
