package pricing

import (
	"fmt"
	"regexp"
	"strings"
)

// Match is a condition on a model's name, compared without regard to case. Exactly one member is set. The form is that of
// genai-prices.
type Match struct {
	Equals     string  `json:"equals,omitempty"`
	StartsWith string  `json:"starts_with,omitempty"`
	EndsWith   string  `json:"ends_with,omitempty"`
	Contains   string  `json:"contains,omitempty"`
	Regex      string  `json:"regex,omitempty"`
	Or         []Match `json:"or,omitempty"`
	And        []Match `json:"and,omitempty"`

	regex *regexp.Regexp
}

// compile checks the condition and prepares its regular expressions.
func (m *Match) compile(path string) error {
	set := 0
	for _, is := range [...]bool{m.Equals != "", m.StartsWith != "", m.EndsWith != "", m.Contains != "", m.Regex != "", m.Or != nil, m.And != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return fmt.Errorf("%s: exactly one of equals, starts_with, ends_with, contains, regex, or, and is required", path)
	}
	if m.Regex != "" {
		regex, err := regexp.Compile("(?i)" + m.Regex)
		if err != nil {
			return fmt.Errorf("%s.regex: %w", path, err)
		}
		m.regex = regex
	}
	for _, all := range [...]struct {
		name string
		list []Match
	}{{"or", m.Or}, {"and", m.And}} {
		for i := range all.list {
			if err := all.list[i].compile(fmt.Sprintf("%s.%s[%d]", path, all.name, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// holds compares with a name in lower case.
func (m *Match) holds(name string) bool {
	switch {
	case m.Equals != "":
		return name == strings.ToLower(m.Equals)
	case m.StartsWith != "":
		return strings.HasPrefix(name, strings.ToLower(m.StartsWith))
	case m.EndsWith != "":
		return strings.HasSuffix(name, strings.ToLower(m.EndsWith))
	case m.Contains != "":
		return strings.Contains(name, strings.ToLower(m.Contains))
	case m.regex != nil:
		return m.regex.MatchString(name)
	case m.Or != nil:
		for i := range m.Or {
			if m.Or[i].holds(name) {
				return true
			}
		}
		return false
	case m.And != nil:
		for i := range m.And {
			if !m.And[i].holds(name) {
				return false
			}
		}
		return true
	}
	return false
}
