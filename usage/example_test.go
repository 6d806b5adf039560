package usage_test

import (
	"fmt"

	"github.com/earmark-dev/earmark/usage"
)

// Anthropic's input_tokens leave out the cache; the normal form includes it.
func ExampleNormalize() {
	u, err := usage.Normalize("", []byte(`{"model": "claude-opus-5-5", "usage": {
		"input_tokens": 10, "cache_read_input_tokens": 50000, "cache_creation_input_tokens": 0, "output_tokens": 503}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(u.Format, u.Model, u.Input.Tokens, u.Input.CacheRead, u.Output.Tokens)
	// Output: anthropic claude-opus-5-5 50010 50000 503
}

// Nothing in this object says whether reasoning is inside completion_tokens, as with OpenAI, or on top, as with xAI.
func ExampleNormalize_ambiguous() {
	raw := []byte(`{"prompt_tokens": 32, "completion_tokens": 100, "completion_tokens_details": {"reasoning_tokens": 94}}`)
	_, err := usage.Normalize("", raw)
	fmt.Println(err)

	u, err := usage.Normalize(usage.XAI, raw)
	fmt.Println(u.Output.Tokens, err)
	// Output:
	// provider_usage.completion_tokens_details.reasoning_tokens: is inside completion_tokens (openai_chat) or on top of them (xai), and total_tokens is missing, which would say it: name the format
	// 194 <nil>
}

func ExampleStream() {
	stream := usage.NewStream("")
	for _, event := range []string{
		`{"type":"message_start","message":{"model":"claude-opus-5-5","usage":{"input_tokens":10,"cache_read_input_tokens":90,"output_tokens":1}}}`,
		`{"type":"message_delta","usage":{"output_tokens":20}}`,
		`{"type":"message_delta","usage":{"output_tokens":55}}`,
	} {
		if err := stream.Add([]byte(event)); err != nil {
			fmt.Println(err)
			return
		}
	}
	u, err := stream.Usage()
	fmt.Println(u.Input.Tokens, u.Output.Tokens, stream.Final(), err)
	// Output: 100 55 true <nil>
}
