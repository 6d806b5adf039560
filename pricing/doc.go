// Package pricing turns the usage of a request into US dollars, exactly.
//
// A [Table] holds [Entry] values: the rates of one model at one provider from one date on,
// with tiers by the size of the prompt, and with variants by service tier, speed, region
// and hour of the response. [Table.Price] adds up all parts of a [usage.Usage] without
// rounding and rounds the sum once, to micro-dollars: usage half up, estimates and resale
// up.
//
// Rates are decimals, read from their text; there are no floats. A used part without a rate
// is an error, and so is a model without an entry: a missing price is not 0. A rate of 0 is
// a price.
//
// Import functions read the tables of LiteLLM, models.dev, OpenRouter and genai-prices, and
// report what they cannot import.
package pricing
