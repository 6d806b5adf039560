// Package usage turns the usage object that an AI provider or a library sent into one normal form.
//
// The providers disagree on what their counts include. Anthropic's input_tokens exclude the
// cache, OpenAI's prompt_tokens include it; xAI reports reasoning in addition to
// completion_tokens, OpenAI within them. In the normal form every total includes all of its
// parts: [Input.Tokens] includes the cache reads, the cache writes, audio, images and
// video; [Output.Tokens] includes reasoning, audio, images and video.
//
// [Normalize] takes the object and the name of its format, or finds the format by shape. If
// a count is ambiguous, or the counts do not add up, it returns an [*Error] that names the
// path. It does not guess.
//
// docs/ai.md lists what includes what, for each format, with the package and version that it was read from.
package usage
