package lifecycle

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Temporal lists a worker for minutes after its end. Its clock is compared with itself alone: here it
// is hours away from ours.
func TestPollsOfWorkers(t *testing.T) {
	t.Parallel()
	const skew = -7 * time.Hour
	start := time.Now()
	type look struct {
		after   time.Duration   // since the beginning
		polls   []time.Duration // when those that are listed began, since the beginning
		waiting time.Duration   // of the oldest task
		polled  bool
	}
	tests := map[string][]look{
		"never any": {{0, nil, 0, false}, {time.Hour, nil, time.Hour, false}},
		"idle":      {{0, []time.Duration{0}, 0, true}, {59 * time.Second, []time.Duration{0}, 0, true}, {119 * time.Second, []time.Duration{60 * time.Second}, 0, true}},
		"busy, and tasks wait for long": {
			{0, []time.Duration{0}, time.Minute, true}, {10 * time.Second, []time.Duration{9 * time.Second}, time.Minute, true},
			{20 * time.Second, []time.Duration{19 * time.Second}, time.Minute, true},
		},
		"gone, and a task waits":  {{0, []time.Duration{0}, 0, true}, {4 * time.Second, []time.Duration{0}, 2 * time.Second, true}, {6 * time.Second, []time.Duration{0}, 4 * time.Second, false}},
		"gone, and nothing waits": {{0, []time.Duration{0}, 0, true}, {90 * time.Second, []time.Duration{0}, 0, true}, {91 * time.Second, []time.Duration{0}, 0, false}},
		"one gone of two":         {{0, []time.Duration{0, 0}, 0, true}, {100 * time.Second, []time.Duration{0, 60 * time.Second}, 0, true}},
		"back again":              {{0, []time.Duration{0}, 0, true}, {100 * time.Second, []time.Duration{0}, time.Minute, false}, {101 * time.Second, []time.Duration{0, 100 * time.Second}, time.Minute, true}},
	}
	for name, looks := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p polls
			for i, look := range looks {
				var pollers []*taskqueuepb.PollerInfo
				for _, at := range look.polls {
					pollers = append(pollers, &taskqueuepb.PollerInfo{LastAccessTime: timestamppb.New(start.Add(skew + at))})
				}
				since, polled := p.look(start.Add(look.after), pollers, look.waiting)
				require.Equal(t, look.polled, polled, "look %d: %s", i, since)
			}
		})
	}
}
