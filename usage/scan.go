package usage

// maxDepth is how deep JSON may nest.
const maxDepth = 1000

// valid reports whether s is one JSON value, by the same grammar as json.Valid but in a fraction of its time: one pass,
// no state machine. FuzzValid compares the two.
func valid(s []byte) bool {
	i := scanValue(s, scanSpace(s, 0), maxDepth)
	return i >= 0 && scanSpace(s, i) == len(s)
}

// scanValue returns the index after the value that begins at i, or -1 if there is none.
func scanValue(s []byte, i, depth int) int {
	if i >= len(s) || depth == 0 {
		return -1
	}
	switch c := s[i]; {
	case c == '{':
		return scanMembers(s, i+1, depth-1, nil)
	case c == '[':
		return scanItems(s, i+1, depth-1)
	case c == '"':
		return scanString(s, i+1)
	case c == '-' || isDigit(s, i):
		return scanNumber(s, i)
	case c == 't':
		return scanWord(s, i, "true")
	case c == 'f':
		return scanWord(s, i, "false")
	case c == 'n':
		return scanWord(s, i, "null")
	}
	return -1
}

// scanMembers returns the index after an object whose first member or end is at i, and adds its members to o unless that is nil.
func scanMembers(s []byte, i, depth int, o *object) int {
	if i = scanSpace(s, i); i < len(s) && s[i] == '}' {
		return i + 1
	}
	for i < len(s) && s[i] == '"' {
		name := i
		if i = scanString(s, i+1); i < 0 {
			return -1
		}
		nameEnd := i
		if i = scanSpace(s, i); i >= len(s) || s[i] != ':' {
			return -1
		}
		value := scanSpace(s, i+1)
		if i = scanValue(s, value, depth); i < 0 {
			return -1
		}
		if o != nil {
			o.add(span{uint32(name), uint32(nameEnd)}, span{uint32(value), uint32(i)}) //nolint:gosec // at most MaxBytes
		}
		switch i = scanSpace(s, i); {
		case i >= len(s):
			return -1
		case s[i] == '}':
			return i + 1
		case s[i] != ',':
			return -1
		}
		i = scanSpace(s, i+1)
	}
	return -1
}

func scanItems(s []byte, i, depth int) int {
	if i = scanSpace(s, i); i < len(s) && s[i] == ']' {
		return i + 1
	}
	for {
		if i = scanValue(s, i, depth); i < 0 {
			return -1
		}
		switch i = scanSpace(s, i); {
		case i >= len(s):
			return -1
		case s[i] == ']':
			return i + 1
		case s[i] != ',':
			return -1
		}
		i = scanSpace(s, i+1)
	}
}

func scanString(s []byte, i int) int {
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		case c == '\\':
			if i++; i >= len(s) {
				return -1
			}
			switch s[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for end := i + 4; i < end; {
					if i++; i >= len(s) || !isHex(s[i]) {
						return -1
					}
				}
			default:
				return -1
			}
		}
	}
	return -1
}

func scanNumber(s []byte, i int) int {
	if s[i] == '-' {
		i++
	}
	switch {
	case !isDigit(s, i):
		return -1
	case s[i] == '0':
		i++
	default:
		i = scanDigits(s, i)
	}
	if i < len(s) && s[i] == '.' {
		if i++; !isDigit(s, i) {
			return -1
		}
		i = scanDigits(s, i)
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		if i++; i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if !isDigit(s, i) {
			return -1
		}
		i = scanDigits(s, i)
	}
	return i
}

func scanDigits(s []byte, i int) int {
	for isDigit(s, i) {
		i++
	}
	return i
}

func scanWord(s []byte, i int, word string) int {
	if len(s)-i < len(word) || string(s[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

func scanSpace(s []byte, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\n' || s[i] == '\t' || s[i] == '\r') {
		i++
	}
	return i
}

func isDigit(s []byte, i int) bool { return i < len(s) && s[i] >= '0' && s[i] <= '9' }

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
