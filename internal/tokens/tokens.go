// Package tokens bounds the input tokens of a request from its text, before a provider has
// counted them. A bound is never below the provider's own count.
//
// OpenAI's models are counted with their own tokenizer. For all others, whose tokenizers are
// not public or not at hand, the bound is one token for each byte of UTF-8: tokenizers that
// work on bytes, or fall back to bytes, never make more. See docs/ai.md.
package tokens

import (
	"strings"
	"sync"

	"github.com/tiktoken-go/tokenizer"
	"golang.org/x/text/unicode/norm"
)

// What providers add to the text of a request: markers around each message, its role, and a
// system prompt of the model's own template. The largest known are 5 tokens for a message
// and about 70 for a request, of the templates of gpt-oss and Llama 3.
const (
	PerMessage = 16
	PerRequest = 128
)

// Text returns the largest number of input tokens of a request to the model with this text
// as its prompt.
func Text(model, text string) int64 {
	return PerRequest + PerMessage + count(model, text)
}

func count(model, text string) int64 {
	if encoding := encodingOf(model); encoding != nil {
		if codec, err := encoding(); err == nil {
			if n, err := codec.Count(text); err == nil {
				return int64(n)
			}
		}
	}
	return byteBound(text)
}

// byteBound is the bound without a tokenizer. Tokenizers of Anthropic's older models and
// many of SentencePiece normalize the text first, to NFKC, which can make it longer.
func byteBound(text string) int64 {
	normal := text
	if !norm.NFKC.IsNormalString(text) {
		normal = norm.NFKC.String(text)
	}
	return int64(max(len(text), len(normal)))
}

// Each vocabulary is read once, at its first use: 0.1 s and 30 MB.
var (
	o200k  = sync.OnceValues(func() (tokenizer.Codec, error) { return tokenizer.Get(tokenizer.O200kBase) })
	cl100k = sync.OnceValues(func() (tokenizer.Codec, error) { return tokenizer.Get(tokenizer.Cl100kBase) })
)

// families are beginnings of names of OpenAI's models, the longest first.
var families = []struct {
	name     string
	encoding func() (tokenizer.Codec, error)
}{
	{"chatgpt-4o", o200k},
	{"codex-mini", o200k},
	{"gpt-oss", o200k},
	{"gpt-4o", o200k},
	{"gpt-4.1", o200k},
	{"gpt-4.5", o200k},
	{"gpt-5", o200k},
	{"o1", o200k},
	{"o3", o200k},
	{"o4-mini", o200k},
	{"gpt-3.5", cl100k},
	{"gpt-4", cl100k},
	{"text-embedding-3", cl100k},
	{"text-embedding-ada-002", cl100k},
}

// encodingOf returns the tokenizer of a model of OpenAI, also under a name with a provider
// before it or of a fine-tuned one; nil for every other model.
func encodingOf(model string) func() (tokenizer.Codec, error) {
	name := strings.ToLower(model)
	if _, tuned, ok := strings.Cut(name, "ft:"); ok {
		name, _, _ = strings.Cut(tuned, ":")
	}
	name = name[strings.LastIndexByte(name, '/')+1:]
	for _, family := range families {
		rest, ok := strings.CutPrefix(name, family.name)
		if ok && (rest == "" || rest[0] == '-' || rest[0] == '.' || rest[0] == ':') {
			return family.encoding
		}
	}
	return nil
}
