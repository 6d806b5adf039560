package earmark

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The units that Earmark counts by itself, from an estimate or a provider's usage.
const (
	UnitTokens       = "tokens"        // input and output tokens together
	UnitInputTokens  = "input_tokens"  // tokens that the model reads, cached ones included
	UnitOutputTokens = "output_tokens" // tokens that the model writes, reasoning included
	UnitUSDMicros    = "usd_micros"    // millionths of a US dollar
	UnitRequests     = "requests"      // calls of a model
)

// CountedUnits are the units that Earmark counts by itself.
var CountedUnits = []string{UnitInputTokens, UnitOutputTokens, UnitRequests, UnitTokens, UnitUSDMicros}

// Limits of an estimate.
const (
	maxModelBytes = 256
	maxChoices    = 1024
	// MaxTokens is the largest number of tokens in an estimate, 2^53 − 1, which every JSON
	// library reads exactly.
	MaxTokens = 1<<53 - 1
)

// Estimate describes one call of a model, for which a reservation needs amounts: the most
// that it may cost in each unit that the budgets count. Exactly one of InputTokens,
// InputText and Messages is given.
type Estimate struct {
	Model    string `json:"model"`
	Provider string `json:"provider,omitempty"` // required if several providers have the model

	InputTokens int64 `json:"input_tokens,omitempty"` // as the provider counts them; 1 to MaxTokens
	// InputText and Messages are counted, and are not kept: Earmark stores the number alone.
	InputText string          `json:"input_text,omitempty"`
	Messages  json.RawMessage `json:"messages,omitempty"` // OpenAI's or Anthropic's, of text

	// MaxOutputTokens is the limit for the output that the provider is given, with
	// reasoning; for a model that writes no text, 0.
	MaxOutputTokens *int64 `json:"max_output_tokens"`
	N               int64  `json:"n,omitempty"` // answers to one input; 0 means 1
	// CachedInputTokens are those of the input that the provider will surely read from its
	// cache.
	CachedInputTokens int64 `json:"cached_input_tokens,omitempty"`

	// ServiceTier, Speed and Region are those that the provider is asked for, as it spells
	// them. Empty means its standard.
	ServiceTier string `json:"service_tier,omitempty"`
	Speed       string `json:"speed,omitempty"`
	Region      string `json:"region,omitempty"`
}

// Validate checks an estimate. The error is CodeInvalidRequest and names the field.
func (e Estimate) Validate() error {
	if e.Model == "" {
		return Invalidf("estimate.model", "is missing; give the model's name, such as \"gpt-5\"")
	}
	for _, named := range []struct{ field, text string }{
		{"model", e.Model}, {"provider", e.Provider}, {"service_tier", e.ServiceTier}, {"speed", e.Speed}, {"region", e.Region},
	} {
		if err := validateText("estimate."+named.field, named.text, maxModelBytes); err != nil {
			return err
		}
	}
	given := 0
	for _, is := range []bool{e.InputTokens != 0, e.InputText != "", len(e.Messages) > 0} {
		if is {
			given++
		}
	}
	if given != 1 {
		return Invalidf("estimate", "has %d of input_tokens, input_text and messages; exactly one is allowed", given)
	}
	if e.MaxOutputTokens == nil {
		return Invalidf("estimate.max_output_tokens", "is missing; give the limit that the provider is given, or 0 for a model that writes no text")
	}
	return cmp.Or(
		between("estimate.input_tokens", e.InputTokens, 0, MaxTokens),
		between("estimate.n", e.N, 0, maxChoices),
		between("estimate.max_output_tokens", *e.MaxOutputTokens, 0, MaxTokens/max(1, e.N)),
		between("estimate.cached_input_tokens", e.CachedInputTokens, 0, MaxTokens))
}

func between(field string, n, least, most int64) error {
	if n < least || n > most {
		return Invalidf(field, "%d is out of range: %d to %d are allowed", n, least, most)
	}
	return nil
}

// Response is a response of a model, from which Earmark computes what it cost in each unit.
type Response struct {
	// ProviderUsage is the usage object as the provider sent it, or the whole response
	// body.
	ProviderUsage json.RawMessage `json:"provider_usage,omitempty"`
	// UsageFormat is one of usage.Formats; if it is empty, the shape of ProviderUsage
	// decides.
	UsageFormat string `json:"usage_format,omitempty"`
	// Model is the one that answered. If it is empty, it is the one that the response
	// names, and else the one of the reservation's estimate.
	Model    string `json:"model,omitempty"`
	Provider string `json:"provider,omitempty"` // if it is empty, that of the estimate
	// RespondedAt, in RFC 3339, decides which off-peak hours apply; empty means now.
	RespondedAt string `json:"responded_at,omitempty"`
}

// Given reports whether there is a response.
func (r Response) Given() bool { return len(r.ProviderUsage) > 0 }

// At returns RespondedAt, or otherwise if that is empty.
func (r Response) At(otherwise time.Time) time.Time {
	if at, err := time.Parse(time.RFC3339, r.RespondedAt); err == nil {
		return at
	}
	return otherwise
}

// ResponseRecord is what the ledger keeps of a Response, so that its charge can be explained.
type ResponseRecord struct {
	// ProviderUsage is the usage object alone: no prompt and no answer. It has at most MaxProviderUsageBytes.
	ProviderUsage json.RawMessage `json:"provider_usage"`
	UsageFormat   string          `json:"usage_format"` // in which it was read; one of usage.Formats
	// Model is the one that answered, as far as the caller, the response or the estimate names it.
	Model        string    `json:"model,omitempty"`
	Provider     string    `json:"provider,omitempty"`
	RespondedAt  time.Time `json:"responded_at"`            // whose off-peak hours applied
	PriceVersion int64     `json:"price_version,omitempty"` // 0 if no prices were needed
}

// MaxProviderUsageBytes bounds a kept usage object. A body of the API is never larger.
const MaxProviderUsageBytes = 64 << 10

// Validate checks that Postgres can store the record. The error is CodeInvalidRequest.
func (r *ResponseRecord) Validate() error {
	if r == nil {
		return nil
	}
	if len(r.ProviderUsage) > MaxProviderUsageBytes {
		return Invalidf("provider_usage", "has a usage object of %d bytes; at most %d are allowed", len(r.ProviderUsage), MaxProviderUsageBytes)
	}
	for _, f := range []struct{ field, text string }{
		{"usage_format", r.UsageFormat}, {"provider_usage.model", r.Model}, {"provider", r.Provider},
	} {
		if err := validateText(f.field, f.text, maxModelBytes); err != nil {
			return err
		}
	}
	return validateJSON("provider_usage", r.ProviderUsage)
}

// validateJSON refuses JSON that a jsonb column does not take: NUL, halves of surrogate pairs, and numbers without a sane size.
func validateJSON(field string, raw json.RawMessage) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	for {
		token, err := decoder.Token()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return Invalidf(field, "is not valid JSON: %w", err)
		}
		switch token := token.(type) {
		case string:
			if strings.ContainsAny(token, "\x00\uFFFD") {
				return Invalidf(field, "holds a NUL character or broken Unicode in a text")
			}
		case json.Number:
			if _, err := token.Float64(); err != nil {
				return Invalidf(field, "holds the number %s, which is out of range", Clip(token.String()))
			}
		}
	}
}

// ValidateSpent checks that exactly one of amounts and a response is given, and is well
// formed; field is the name of the amounts. The error is CodeInvalidRequest.
func ValidateSpent(field string, amounts Amounts, r Response) error {
	fields := []struct{ name, text string }{
		{"usage_format", r.UsageFormat}, {"model", r.Model}, {"provider", r.Provider}, {"responded_at", r.RespondedAt},
	}
	if !r.Given() {
		for _, f := range fields {
			if f.text != "" {
				return Invalidf(f.name, "is given without provider_usage, to which it belongs")
			}
		}
		return validateAmounts(field, amounts)
	}
	if len(amounts) > 0 {
		return Invalidf("provider_usage", "is given beside %s; give one of them", field)
	}
	for _, f := range fields {
		if err := validateText(f.name, f.text, maxModelBytes); err != nil {
			return err
		}
	}
	if r.RespondedAt == "" {
		return nil
	}
	_, err := ParseTime("responded_at", r.RespondedAt)
	return err
}

// Priced says which prices apply to a reservation that was made from an estimate: those of
// its admission.
type Priced struct {
	Model    string
	Provider string    // empty if none was named
	Version  int64     // of the prices; 0 if none were needed
	At       time.Time // the moment whose prices apply
}

// Keys of the metadata in which a reservation keeps its Priced. A caller may not set them.
const (
	metadataPrefix       = "earmark."
	MetadataModel        = metadataPrefix + "model"
	MetadataProvider     = metadataPrefix + "provider"
	MetadataPriceVersion = metadataPrefix + "price_version"
	MetadataPricedAt     = metadataPrefix + "priced_at" // RFC 3339, UTC
)

// With returns m with p added.
func (m Metadata) With(p Priced) Metadata {
	all := maps.Clone(m)
	if all == nil {
		all = Metadata{}
	}
	if p.Model != "" {
		all[MetadataModel] = p.Model
	}
	if p.Provider != "" {
		all[MetadataProvider] = p.Provider
	}
	if p.Version != 0 {
		all[MetadataPriceVersion] = strconv.FormatInt(p.Version, 10)
		all[MetadataPricedAt] = p.At.UTC().Format(time.RFC3339Nano)
	}
	return all
}

// Priced returns what With has added; zero if nothing was.
func (m Metadata) Priced() Priced {
	p := Priced{Model: m[MetadataModel], Provider: m[MetadataProvider]}
	version, err := strconv.ParseInt(m[MetadataPriceVersion], 10, 64)
	at, atErr := time.Parse(time.RFC3339Nano, m[MetadataPricedAt])
	if err == nil && atErr == nil && version > 0 {
		p.Version, p.At = version, at
	}
	return p
}

// ValidateOwnMetadata refuses keys that Earmark sets itself. The error is
// CodeInvalidRequest.
func ValidateOwnMetadata(m Metadata) error {
	keys := m.Keys()
	if i := slices.IndexFunc(keys, func(key string) bool { return strings.HasPrefix(key, metadataPrefix) }); i >= 0 {
		return Invalidf("metadata."+Clip(keys[i]), "begins with %q, which is for Earmark's own notes; use another key", metadataPrefix)
	}
	return nil
}
