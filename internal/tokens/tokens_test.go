package tokens_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/tiktoken-go/tokenizer"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"github.com/earmark-dev/earmark/internal/tokens"
)

const overhead = tokens.PerRequest + tokens.PerMessage

// scripts are pieces of text that tokenizers treat in different ways.
var scripts = []string{
	"The quick brown fox", " ", "      ", "\n\n\n", "\t", "\u0000", "\u0007", "\u200d", "\ufeff", "漢字とかな", "한국어", "العربية", "हिन्दी", "ไทย",
	"😀👩‍👩‍👧‍👦🏳️‍🌈", "𓀀𒀀", "ﷺ", "ﬃ", "½", "e\u0301\u0302\u0303", "func main() { return x[i]++ }", "<|endoftext|>", "<|im_start|>", "1234567890",
	"aaaaaaaaaaaaaaaaaaaa", "don't they'LL", "a\r\nb", "\u3000", "ſ", "İ", "zalgo̡͊͠", "\U0010ffff", "🇩🇪",
}

func texts() *rapid.Generator[string] {
	return rapid.Map(rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom(scripts), rapid.StringN(0, 20, 80)), 0, 30),
		func(pieces []string) string { return strings.Join(pieces, "") })
}

// TestTextIsNeverBelowTheTokenizer counts with the tokenizers themselves.
func TestTextIsNeverBelowTheTokenizer(t *testing.T) {
	t.Parallel()
	models := map[tokenizer.Encoding][]string{
		tokenizer.O200kBase:  {"gpt-4o-mini", "openai/gpt-5.4", "ft:gpt-4.1:acme::abc", "o3", "GPT-4o", "gpt-oss-120b", "claude-fable-5", "llama-4", ""},
		tokenizer.Cl100kBase: {"gpt-4", "gpt-3.5-turbo", "text-embedding-3-small", "mistral-large"},
		tokenizer.P50kBase:   {"gemini-3-pro"},
	}
	for encoding, names := range models {
		codec, err := tokenizer.Get(encoding)
		require.NoError(t, err)
		rapid.Check(t, func(t *rapid.T) {
			text, model := texts().Draw(t, "text"), rapid.SampledFrom(names).Draw(t, "model")
			real, err := codec.Count(text)
			require.NoError(t, err)
			require.GreaterOrEqual(t, tokens.Text(model, text), int64(real)+overhead)
			escaped, err := json.Marshal(text)
			require.NoError(t, err)
			bound, err := tokens.Messages(model, json.RawMessage(`[{"role":"user","content":`+string(escaped)+`}]`))
			require.NoError(t, err)
			require.GreaterOrEqual(t, bound, int64(real)+overhead)
		})
	}
}

// TestBoundWithoutATokenizer covers tokenizers of bytes, with and without normalization.
func TestBoundWithoutATokenizer(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := texts().Draw(t, "text")
		bound := tokens.Text("claude-fable-5", text) - overhead
		require.GreaterOrEqual(t, bound, int64(len(text)))
		require.GreaterOrEqual(t, bound, int64(len(norm.NFKC.String(text))))
		require.GreaterOrEqual(t, bound, int64(utf8.RuneCountInString(text)))
	})
	require.EqualValues(t, 33+overhead, tokens.Text("claude-fable-5", "ﷺ"), "3 bytes become 33 in NFKC")
}

func TestTextUsesTheModelsOwnTokenizer(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 10)
	for model, want := range map[string]int64{
		"gpt-4o": 101, "gpt-4": 101, "openai/gpt-5": 101, "ft:gpt-4o-2024-08-06:acme::x1": 101, "azure/gpt-4.1": 101,
		"claude-fable-5": 450, "gpt-40": 450, "o10": 450, "gpt-6": 450, "": 450,
	} {
		require.Equal(t, want+overhead, tokens.Text(model, text), model)
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	for name, example := range map[string]struct {
		messages string
		least    int64 // tokens of the text alone
	}{
		"OpenAI":          {`[{"role":"system","content":"Be brief."},{"role":"user","name":"bob","content":[{"type":"text","text":"hello"},{"type":"input_text","text":"world"}]}]`, 19},
		"Anthropic":       {`[{"role":"user","content":[{"type":"text","text":"hello","cache_control":{"type":"ephemeral"}}]},{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"find","input":{"q":"shoes"}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"none"}]}]}]`, 22},
		"tool calls":      {`[{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"find","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"[]"}]`, 30},
		"Responses input": {`[{"type":"message","role":"user","content":[{"type":"input_text","text":"hello"}]}]`, 5},
	} {
		bound, err := tokens.Messages("claude-fable-5", json.RawMessage(example.messages))
		require.NoError(t, err, name)
		require.GreaterOrEqual(t, bound, tokens.PerRequest+example.least, name)
		require.LessOrEqual(t, bound, int64(tokens.PerRequest+10*tokens.PerMessage+len(example.messages)), name)
	}
}

func TestMessagesWithoutABound(t *testing.T) {
	t.Parallel()
	for messages, path := range map[string]string{
		`[{"role":"user","content":[{"type":"text","text":"what is it?"},{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}]`: "[0].content[1].type",
		`[{"role":"user","content":[{"type":"image","source":{"type":"base64","data":"aaaa"}}]}]`:                                                 "[0].content[0].type",
		`[{"role":"user","content":"a"},{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}]`:                                     "[1].content[0].type",
		`[{"role":"user","content":"a","images":["data:image/png;base64,aaaa"]}]`:                                                                 "[0].images",
		`[{"role":"user","content":7}]`:   "[0].content",
		`[{"role":"user","content":[7]}]`: "[0].content[0]",
		`["hello"]`:                       "[0]",
		`[null]`:                          "[0]",
		`[]`:                              "",
		`null`:                            "",
		`{"role":"user"}`:                 "",
		`[{"content":[{"type":"text","text":[{"type":"text","text":[{"type":"text","text":[{"type":"text","text":[{"type":"text","text":[{"text":[{"text":[{"text":[{"text":[{}]}]}]}]}]}]}]}]}]}]}]`: "[0].content[0].text[0].text[0].text[0].text[0].text[0].text[0].text[0].text[0]",
	} {
		_, err := tokens.Messages("gpt-4o", json.RawMessage(messages))
		var wrong *tokens.Error
		require.ErrorAs(t, err, &wrong, messages)
		require.Equal(t, path, wrong.Path, messages)
	}
}
