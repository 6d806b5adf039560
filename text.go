package earmark

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// ValidateName refuses a name with characters that VisibleText replaces. The error is CodeInvalidRequest.
func ValidateName(field, name string) error {
	if VisibleText(name) != name {
		return Invalidf(field, "holds a control character, or one that changes the direction of writing")
	}
	return nil
}

// VisibleText replaces the characters that could change a reader's screen with U+FFFD:
// control characters, including C1, and those that change the direction of writing. Earmark
// stores metadata and reasons unchanged, and calls VisibleText when it shows them.
func VisibleText(text string) string {
	return strings.Map(func(char rune) rune {
		if unicode.IsControl(char) || unicode.Is(unicode.Bidi_Control, char) {
			return utf8.RuneError
		}
		return char
	}, text)
}
