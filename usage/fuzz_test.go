package usage_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/usage"
)

// FuzzNormalize: whatever comes in, the answer is an *Error with a path or a usage whose parts fit into their wholes and
// which the kept object gives again.
func FuzzNormalize(f *testing.F) {
	for _, fixture := range fixtures {
		f.Add(string(fixture.format), []byte(fixture.raw))
		f.Add("", []byte(fixture.raw))
	}
	f.Fuzz(func(t *testing.T, format string, raw []byte) {
		u, err := usage.Normalize(usage.Format(format), raw)
		if err != nil {
			var at *usage.Error
			require.ErrorAs(t, err, &at)
			require.True(t, strings.HasPrefix(at.Path, usage.Root) || at.Path == "usage_format", at.Path)
			require.NotEmpty(t, at.Reason)
			return
		}
		requireSound(t, u)
		var sum usage.Usage
		for _, part := range u.Each {
			requireSound(t, part)
			sum.Input.Tokens += part.Input.Tokens
			sum.Output.Tokens += part.Output.Tokens
		}
		if len(u.Each) > 0 {
			require.Equal(t, u.Input.Tokens, sum.Input.Tokens)
			require.Equal(t, u.Output.Tokens, sum.Output.Tokens)
		}
		again, err := usage.Normalize(u.Format, u.Raw)
		require.NoError(t, err)
		require.Equal(t, u.Input, again.Input)
		require.Equal(t, u.Output, again.Output)
		require.Equal(t, u.Counts, again.Counts)
	})
}

func requireSound(t *testing.T, u usage.Usage) {
	t.Helper()
	in, out := u.Input, u.Output
	for _, n := range []int64{
		in.Tokens - in.CacheRead - in.CacheWrite,
		in.CacheWrite - in.CacheWrite5m - in.CacheWrite30m - in.CacheWrite1h - in.CacheWrite12h,
		in.CacheRead - in.CacheReadAudio - in.CacheReadImage - in.CacheReadVideo,
		in.Tokens - in.Audio - in.Image - in.Video,
		in.Audio - in.CacheReadAudio, in.Image - in.CacheReadImage, in.Video - in.CacheReadVideo,
		out.Tokens - out.Reasoning - out.Audio - out.Image - out.Video,
		in.Tokens, in.CacheRead, in.CacheWrite, in.CacheWrite5m, in.CacheWrite30m, in.CacheWrite1h, in.CacheWrite12h, in.Audio, in.Image, in.Video,
		out.Tokens, out.Reasoning, out.Audio, out.Image, out.Video, u.Counts.Requests, u.Counts.WebSearches, u.Counts.AudioMilliseconds, u.Counts.Pages,
	} {
		require.GreaterOrEqual(t, n, int64(0))
		require.LessOrEqual(t, n, int64(usage.MaxCount))
	}
}

// FuzzStream: events in any order end in a usage that is sound, or in an error.
func FuzzStream(f *testing.F) {
	f.Add([]byte(`{"type":"message_start","message":{"usage":{"input_tokens":10,"output_tokens":1}}}`), []byte(`{"type":"message_delta","usage":{"output_tokens":9}}`))
	f.Add([]byte(`{"usageMetadata":{"promptTokenCount":5,"totalTokenCount":5}}`), []byte(`[DONE]`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		s := usage.NewStream("")
		_ = s.Add(first)
		_ = s.Add(second)
		if u, err := s.Usage(); err == nil {
			requireSound(t, u)
		}
	})
}
