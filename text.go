package earmark

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// VisibleText replaces what could steer the screen of whoever reads the text: control characters,
// C1 included, and those that change the direction of writing. Each becomes U+FFFD. Metadata and
// reasons are stored as they came, and pass through here wherever people read them.
func VisibleText(text string) string {
	return strings.Map(func(char rune) rune {
		if unicode.IsControl(char) || unicode.Is(unicode.Bidi_Control, char) {
			return utf8.RuneError
		}
		return char
	}, text)
}
