package usage

import (
	"encoding/json"
	"math"
)

// Usage is the usage of one request, or of several requests together. All counts are exact
// and never negative.
type Usage struct {
	// Format is the format in which the object was read.
	Format Format `json:"format"`
	// Model is the model that the object or the response around it names, or "".
	Model string `json:"model,omitempty"`

	Input  Input  `json:"input"`
	Output Output `json:"output"`
	Counts Counts `json:"counts"`

	// ServiceTier, Speed and Region are those of the response, in lower case, as the
	// provider spells them, or "". They decide the price; the request's own do not.
	ServiceTier string `json:"service_tier,omitempty"`
	Speed       string `json:"speed,omitempty"`
	Region      string `json:"region,omitempty"`

	// Cost is the amount that the gateway charged, if it reports one.
	Cost Cost `json:"cost,omitzero"`

	// Each lists the requests or iterations of this usage, if the object distinguishes
	// them: they may belong to other models, and price tiers apply to each of them alone.
	// Input, Output and Counts are their sums. Empty means one request.
	Each []Usage `json:"each,omitempty"`

	// Raw is a copy of the usage object alone. It holds no prompt and no answer.
	Raw json.RawMessage `json:"raw,omitempty"`
}

// Input counts tokens that the model read.
type Input struct {
	// Tokens is the total; it includes all parts below and the results of tools in the
	// prompt.
	Tokens int64 `json:"tokens"`

	// CacheRead counts tokens read from the provider's cache.
	CacheRead int64 `json:"cache_read,omitempty"`
	// CacheReadAudio and CacheReadImage are parts of CacheRead, and of Audio and Image.
	CacheReadAudio int64 `json:"cache_read_audio,omitempty"`
	CacheReadImage int64 `json:"cache_read_image,omitempty"`
	// CacheReadVideo is a part of CacheRead and of Video.
	CacheReadVideo int64 `json:"cache_read_video,omitempty"`

	// CacheWrite counts tokens written to the provider's cache, for any duration.
	CacheWrite int64 `json:"cache_write,omitempty"`
	// CacheWrite5m to CacheWrite12h are parts of CacheWrite, by how long the cache keeps
	// them: 5 and 30 minutes, 1 and 12 hours. The rest of CacheWrite has a duration that
	// the provider did not name.
	CacheWrite5m  int64 `json:"cache_write_5m,omitempty"`
	CacheWrite30m int64 `json:"cache_write_30m,omitempty"`
	CacheWrite1h  int64 `json:"cache_write_1h,omitempty"`
	CacheWrite12h int64 `json:"cache_write_12h,omitempty"`

	Audio int64 `json:"audio,omitempty"`
	// Image includes documents, which Gemini reads as images.
	Image int64 `json:"image,omitempty"`
	Video int64 `json:"video,omitempty"`
}

// Output counts tokens that the model wrote.
type Output struct {
	// Tokens is the total; it includes all parts below and rejected predictions.
	Tokens int64 `json:"tokens"`
	// Reasoning counts tokens that the model wrote for itself, also called thinking or
	// thoughts.
	Reasoning int64 `json:"reasoning,omitempty"`
	Audio     int64 `json:"audio,omitempty"`
	Image     int64 `json:"image,omitempty"`
	Video     int64 `json:"video,omitempty"`
}

// Counts are the parts that are not measured in tokens.
type Counts struct {
	// Requests is the number of calls of a model: 1 unless the object says otherwise.
	Requests    int64 `json:"requests,omitempty"`
	WebSearches int64 `json:"web_searches,omitempty"`
	WebFetches  int64 `json:"web_fetches,omitempty"`
	// MapSearches are Gemini's calls of Google Maps.
	MapSearches int64 `json:"map_searches,omitempty"`
	// SearchSources are xAI's sources used.
	SearchSources int64 `json:"search_sources,omitempty"`
	// SearchUnits are Cohere's unit of reranking.
	SearchUnits     int64 `json:"search_units,omitempty"`
	Classifications int64 `json:"classifications,omitempty"`
	// ToolCalls are calls of tools that the provider ran, other than searches and fetches.
	ToolCalls int64 `json:"tool_calls,omitempty"`
	// AudioMilliseconds is the length of the audio that was read, rounded half up to a millisecond.
	AudioMilliseconds int64 `json:"audio_milliseconds,omitempty"`
	Images            int64 `json:"images,omitempty"`
	Pages             int64 `json:"pages,omitempty"`
}

// Cost is an amount in US dollars, as the decimal text of the gateway's JSON. Empty means
// that it reported none.
type Cost struct {
	// USD is what the gateway charged.
	USD json.Number `json:"usd,omitempty"`
	// UpstreamUSD is what the provider charges in addition, to the caller's own key.
	UpstreamUSD json.Number `json:"upstream_usd,omitempty"`
}

// MaxCount is the largest accepted count, 2^53 − 1: the largest integer that every JSON
// library reads exactly.
const MaxCount = 1<<53 - 1

// add adds the counts of v to u, for the requests of one usage; it returns false if a count
// exceeds MaxCount.
func (u *Usage) add(v *Usage) bool {
	mine, theirs := u.counts(), v.counts()
	for i, n := range mine {
		if *n > MaxCount-*theirs[i] {
			return false
		}
		*n += *theirs[i]
	}
	return true
}

const countFields = 29

// counts returns every count of the normal form, so that sums and checks miss none.
func (u *Usage) counts() [countFields]*int64 {
	in, out, c := &u.Input, &u.Output, &u.Counts
	return [countFields]*int64{
		&in.Tokens, &in.CacheRead, &in.CacheReadAudio, &in.CacheReadImage, &in.CacheReadVideo,
		&in.CacheWrite, &in.CacheWrite5m, &in.CacheWrite30m, &in.CacheWrite1h, &in.CacheWrite12h,
		&in.Audio, &in.Image, &in.Video,
		&out.Tokens, &out.Reasoning, &out.Audio, &out.Image, &out.Video,
		&c.Requests, &c.WebSearches, &c.WebFetches, &c.MapSearches, &c.SearchSources, &c.SearchUnits,
		&c.Classifications, &c.ToolCalls, &c.AudioMilliseconds, &c.Images, &c.Pages,
	}
}

// total adds counts. It saturates; a saturated sum never equals a total.
func total(counts ...int64) int64 {
	var sum int64
	for _, n := range counts {
		if n > math.MaxInt64-sum {
			return math.MaxInt64
		}
		sum += n
	}
	return sum
}
