package pricing

import (
	"fmt"
	"math"
	"math/big"
	"math/bits"
)

const (
	wordBits = 64
	// maxPower is the largest power of ten in 64 bits.
	maxPower = 19
)

var powers = func() (all [maxPower + 1]uint64) {
	all[0] = 1
	for i := range maxPower {
		all[i+1] = all[i] * 10
	}
	return all
}()

// number is an integer, 0 or more. The sums of usual prices fit 128 bits; large takes the place of high and low where a
// number does not.
type number struct {
	high, low uint64
	large     *big.Int
}

func (n number) big() *big.Int {
	if n.large != nil {
		return n.large
	}
	b := new(big.Int).SetUint64(n.high)
	return b.Lsh(b, wordBits).Add(b, new(big.Int).SetUint64(n.low))
}

func (n number) plus(m number) number {
	if n.large == nil && m.large == nil {
		low, carry := bits.Add64(n.low, m.low, 0)
		if high, beyond := bits.Add64(n.high, m.high, carry); beyond == 0 {
			return number{high: high, low: low}
		}
	}
	return number{large: new(big.Int).Add(n.big(), m.big())}
}

func (n number) times(by uint64) number {
	if n.large == nil {
		carry, low := bits.Mul64(n.low, by)
		beyond, high := bits.Mul64(n.high, by)
		high, more := bits.Add64(high, carry, 0)
		if beyond == 0 && more == 0 {
			return number{high: high, low: low}
		}
	}
	return number{large: new(big.Int).Mul(n.big(), new(big.Int).SetUint64(by))}
}

// shift returns n × 10^places.
func (n number) shift(places int) number {
	for ; places > 0; places -= maxPower {
		n = n.times(powers[min(places, maxPower)])
	}
	return n
}

// dividedBy10 returns n / 10^places, rounded up or half up.
func (n number) dividedBy10(places int, up bool) number {
	if n.large != nil || places > maxPower {
		unit := power(places)
		quotient, rest := new(big.Int).QuoRem(n.big(), unit, new(big.Int))
		if up && rest.Sign() > 0 || !up && rest.Lsh(rest, 1).Cmp(unit) >= 0 {
			quotient.Add(quotient, big.NewInt(1))
		}
		if quotient.IsUint64() {
			return number{low: quotient.Uint64()}
		}
		return number{large: quotient}
	}
	unit := powers[places]
	high, rest := bits.Div64(0, n.high, unit)
	low, rest := bits.Div64(rest, n.low, unit)
	quotient := number{high: high, low: low}
	if up && rest > 0 || !up && rest >= unit-rest {
		return quotient.plus(number{low: 1})
	}
	return quotient
}

// sum is an exact sum: value × 10^-scale.
type sum struct {
	value number
	scale int
}

// add adds count × rate × 10^-shift.
func (s *sum) add(count uint64, rate Decimal, shift int) {
	s.addSum(sum{number{low: count}.times(rate.digits), int(rate.scale) + shift})
}

// addSum adds another sum.
func (s *sum) addSum(other sum) {
	scale := max(s.scale, other.scale)
	s.value = s.value.shift(scale - s.scale).plus(other.value.shift(scale - other.scale))
	s.scale = scale
}

func (s *sum) multiply(by Decimal) {
	s.value = s.value.times(by.digits)
	s.scale += int(by.scale)
}

// micros rounds dollars to micro-dollars, up or half up.
func (s *sum) micros(up bool) (int64, error) {
	const microsPlaces = 6
	n := s.value.shift(microsPlaces - s.scale)
	if s.scale > microsPlaces {
		n = s.value.dividedBy10(s.scale-microsPlaces, up)
	}
	if n.large != nil || n.high > 0 || n.low > math.MaxInt64 {
		return 0, fmt.Errorf("%s US dollars are more than an amount can be", s.String())
	}
	return int64(n.low), nil
}

func (s *sum) String() string { return plain(s.value.big().String(), s.scale) }
