package pricing

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// Decimal is an exact number, 0 or more, of at most 18 digits and 36 decimal places.
type Decimal struct {
	digits uint64
	scale  uint8 // digits × 10^-scale, without trailing zeros after the point
}

const (
	maxDigits = 18
	maxScale  = 36
)

// ParseDecimal reads the text of a JSON number, with or without an exponent.
func ParseDecimal(text string) (Decimal, error) {
	mantissa, exponent, hasExponent := strings.Cut(strings.ToLower(text), "e")
	scale := 0
	if hasExponent {
		n, err := strconv.Atoi(exponent)
		if err != nil || n < -100 || n > 100 {
			return Decimal{}, fmt.Errorf("%s is not a decimal number: the exponent must be from -100 to 100", shorten(text))
		}
		scale = -n
	}
	whole, fraction, hasPoint := strings.Cut(mantissa, ".")
	if whole == "" || hasPoint && fraction == "" {
		return Decimal{}, fmt.Errorf("%s is not a decimal number, 0 or more", shorten(text))
	}
	scale += len(fraction)
	digits := strings.TrimLeft(whole+fraction, "0")
	for strings.HasSuffix(digits, "0") && scale > 0 {
		digits, scale = digits[:len(digits)-1], scale-1
	}
	if digits == "" {
		if strings.Trim(whole+fraction, "0") != "" {
			return Decimal{}, fmt.Errorf("%s is not a decimal number, 0 or more", shorten(text))
		}
		return Decimal{}, nil
	}
	for ; scale < 0 && len(digits) <= maxDigits; scale++ {
		digits += "0"
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return Decimal{}, fmt.Errorf("%s is not a decimal number, 0 or more", shorten(text))
		}
	}
	if len(digits) > maxDigits || scale < 0 || scale > maxScale {
		return Decimal{}, fmt.Errorf("%s has more than %d digits or %d decimal places", shorten(text), maxDigits, maxScale)
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return Decimal{}, err
	}
	return Decimal{n, uint8(scale)}, nil
}

// MustDecimal is ParseDecimal for constants; it panics if the text is not a decimal.
func MustDecimal(text string) Decimal {
	d, err := ParseDecimal(text)
	if err != nil {
		panic(err)
	}
	return d
}

// IsZero reports whether the number is 0.
func (d Decimal) IsZero() bool { return d.digits == 0 }

// String returns the number without an exponent, for example 0.0000025.
func (d Decimal) String() string { return plain(strconv.FormatUint(d.digits, 10), int(d.scale)) }

// Shift returns d × 10^places, such as the price of a million for places 6. The error says
// that the number has too many digits.
func (d Decimal) Shift(places int) (Decimal, error) {
	return ParseDecimal(d.String() + "e" + strconv.Itoa(places))
}

// Rat returns the number as a new fraction.
func (d Decimal) Rat() *big.Rat {
	return new(big.Rat).SetFrac(new(big.Int).SetUint64(d.digits), power(int(d.scale)))
}

// dividedBy10 returns d / 10^n.
func (d Decimal) dividedBy10(n uint8) (Decimal, error) {
	if d.digits == 0 {
		return d, nil
	}
	for ; n > 0 && d.scale == 0 && d.digits%10 == 0; n-- {
		d.digits /= 10
	}
	if d.scale += n; d.scale > maxScale {
		return Decimal{}, errors.New("has too many decimal places")
	}
	return d, nil
}

// dividedBy returns d / n; ok is false if that is not a decimal of the allowed size.
func (d Decimal) dividedBy(n uint64) (Decimal, bool) {
	for d.digits%n != 0 {
		if d.digits > 1e17 || d.scale == maxScale {
			return Decimal{}, false
		}
		d.digits, d.scale = d.digits*10, d.scale+1
	}
	d.digits /= n
	for d.scale > 0 && d.digits%10 == 0 {
		d.digits, d.scale = d.digits/10, d.scale-1
	}
	return d, true
}

// MarshalJSON writes the number as a string, so that no reader turns it into a float.
func (d Decimal) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads a number or a string.
func (d *Decimal) UnmarshalJSON(text []byte) error {
	s := string(text)
	if strings.HasPrefix(s, `"`) {
		if err := json.Unmarshal(text, &s); err != nil {
			return err
		}
	}
	parsed, err := ParseDecimal(s)
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// plain writes digits × 10^-scale.
func plain(digits string, scale int) string {
	if scale <= 0 {
		return digits
	}
	if len(digits) <= scale {
		digits = strings.Repeat("0", scale-len(digits)+1) + digits
	}
	whole, fraction := digits[:len(digits)-scale], strings.TrimRight(digits[len(digits)-scale:], "0")
	if fraction == "" {
		return whole
	}
	return whole + "." + fraction
}

func shorten(s string) string {
	const most = 40
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// power returns 10^n.
func power(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }
