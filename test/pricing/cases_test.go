package pricing_test

import (
	"time"

	"github.com/earmark-dev/earmark/pricing"
	"github.com/earmark-dev/earmark/usage"
)

// testCase is one usage of one model, in the form that the other programs read too. Counts are of tokens, but for Searches;
// in includes the cache, audio and images; out includes reasoning, audio and images.
type testCase struct {
	Provider        string `json:"provider"`
	Model           string `json:"model"`
	Key             string `json:"key"`                        // the model's name in the table
	LiteLLMProvider string `json:"litellm_provider,omitempty"` // as the table spells it
	Twice           bool   `json:"twice,omitempty"`            // the table has this provider and name twice
	Shape           string `json:"shape"`
	Tier            string `json:"tier"`
	At              string `json:"at"`
	In              int64  `json:"in"`
	CacheRead       int64  `json:"cache_read"`
	CacheWrite      int64  `json:"cache_write"`
	CacheWrite5m    int64  `json:"cache_write_5m"`
	CacheWrite1h    int64  `json:"cache_write_1h"`
	AudioIn         int64  `json:"audio_in"`
	ImageIn         int64  `json:"image_in"`
	Out             int64  `json:"out"`
	Reasoning       int64  `json:"reasoning"`
	AudioOut        int64  `json:"audio_out"`
	ImageOut        int64  `json:"image_out"`
	Searches        int64  `json:"searches"`
}

func (c testCase) usage() usage.Usage {
	return usage.Usage{
		Input: usage.Input{
			Tokens: c.In, CacheRead: c.CacheRead, CacheWrite: c.CacheWrite, CacheWrite5m: c.CacheWrite5m, CacheWrite1h: c.CacheWrite1h,
			Audio: c.AudioIn, Image: c.ImageIn,
		},
		Output: usage.Output{Tokens: c.Out, Reasoning: c.Reasoning, Audio: c.AudioOut, Image: c.ImageOut},
		Counts: usage.Counts{Requests: 1, WebSearches: c.Searches}, ServiceTier: c.Tier,
	}
}

func (c testCase) query() pricing.Query {
	at, err := time.Parse(time.RFC3339, c.At)
	if err != nil {
		panic(err)
	}
	return pricing.Query{Provider: c.Provider, Model: c.Model, Time: at}
}
