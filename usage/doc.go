// Package usage turns the usage object that an AI provider or a library sent into one normal form.
//
// The providers disagree on what their counts include. Anthropic's input_tokens leave out the cache, OpenAI's
// prompt_tokens include it; xAI reports reasoning beside completion_tokens, OpenAI inside. In the normal form every
// total includes all of its parts: [Input.Tokens] the cache reads, the cache writes, audio, images and video;
// [Output.Tokens] reasoning, audio, images and video.
//
// [Normalize] takes the object by the name of its format, or finds the format by shape. What is ambiguous, or does not
// add up, is an [*Error] that names the path. Normalize does not guess.
//
// docs/ai.md lists what includes what, for each format, with the package and version that it was read from.
package usage
