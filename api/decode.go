package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// MaxBodyBytes bounds the body of a request.
const MaxBodyBytes = 64 << 10

// nullableFields are the fields of a request that accept null, which means none, and removableField is the one of a change
// that does. Every other null is refused, because it would silently become a zero, and a usage of null is not a usage of 0.
var nullableFields = []string{"soft_ceiling", "rollover.max_total"}

const removableField = "rollover"

// decodeBody decodes the JSON object in the body into into, a pointer to a struct that
// holds the defaults. The error is CodeInvalidRequest and names the field.
//
// The decoding of encoding/json into structs is too lenient for amounts of money: it
// accepts null for 0, matches names in any case, lets the last of two equal names win, and
// does not name the key of a map whose value it refuses.
func decodeBody(c *gin.Context, into any) error {
	body, err := readBody(c)
	if err != nil {
		return err
	}
	if len(body) == 0 {
		return earmark.Invalidf("", "the body is empty; a JSON object is needed")
	}
	return decodeAs(c.Request.Header, body, into)
}

// decodeOptionalBody is decodeBody for a call whose body may be missing; into is then
// unchanged.
func decodeOptionalBody(c *gin.Context, into any) error {
	body, err := readBody(c)
	if err != nil || len(body) == 0 {
		return err
	}
	return decodeAs(c.Request.Header, body, into)
}

func readBody(c *gin.Context) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, MaxBodyBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, earmark.Errorf(earmark.CodePayloadTooLarge, "the body is over %d bytes", MaxBodyBytes)
	case err != nil:
		return nil, earmark.Invalidf("", "the body could not be read to its end")
	}
	return body, nil
}

func decodeAs(header http.Header, body []byte, into any) error {
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" {
		return unsupported("Content-Type", "%q is not supported; send application/json", earmark.Clip(header.Get("Content-Type")))
	}
	if encoding := header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return unsupported("Content-Encoding", "%q is not supported; send the body as it is", earmark.Clip(encoding))
	}
	return decodeJSON(body, into)
}

func unsupported(field, format string, args ...any) *earmark.Error {
	err := earmark.Errorf(earmark.CodeUnsupportedMediaType, format, args...)
	err.Field = field
	return err
}

// decodeJSON decodes one JSON object into into and refuses text after it.
func decodeJSON(body []byte, into any) error {
	if !utf8.Valid(body) {
		return earmark.Invalidf("", "the body is not UTF-8")
	}
	d := decoder{json.NewDecoder(bytes.NewReader(body))}
	d.tokens.UseNumber()
	token, err := d.next("")
	if err != nil {
		return err
	}
	if token != json.Delim('{') {
		return earmark.Invalidf("", "the body is %s; a JSON object is needed", kindOf(token))
	}
	if err := d.object("", reflect.ValueOf(into).Elem()); err != nil {
		return err
	}
	if _, err := d.tokens.Token(); !errors.Is(err, io.EOF) {
		return earmark.Invalidf("", "the body goes on after its JSON object; one object is allowed")
	}
	return nil
}

// decoder reads the tokens of a body along the type into which it decodes. It refuses a
// member that the type does not have at once, so the type bounds the depth.
type decoder struct{ tokens *json.Decoder }

func (d decoder) next(path string) (json.Token, error) {
	token, err := d.tokens.Token()
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return token, nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, earmark.Invalidf(path, "the body ends in the middle of its JSON")
	case errors.As(err, &syntax):
		return nil, earmark.Invalidf(path, "the body is not JSON at byte %d: %v", d.tokens.InputOffset(), syntax)
	}
	return nil, earmark.Invalidf(path, "the body is not JSON at byte %d", d.tokens.InputOffset())
}

// value stores the value that begins with token in target.
func (d decoder) value(path string, token json.Token, target reflect.Value) error {
	if token == nil {
		return null(path, target)
	}
	switch target.Kind() {
	case reflect.Pointer:
		target.Set(reflect.New(target.Type().Elem()))
		if r, ok := target.Interface().(*earmark.Rollover); ok {
			*r = r.WithDefaults() // before the body, which replaces them
		}
		return d.value(path, token, target.Elem())
	case reflect.Struct, reflect.Map:
		if token == json.Delim('{') {
			return d.object(path, target)
		}
	case reflect.Slice:
		if token == json.Delim('[') {
			return d.array(path, target)
		}
	case reflect.String:
		if text, ok := token.(string); ok {
			target.SetString(text)
			return nil
		}
	case reflect.Bool:
		if flag, ok := token.(bool); ok {
			target.SetBool(flag)
			return nil
		}
	case reflect.Int64:
		if number, ok := token.(json.Number); ok {
			return integer(path, number, target)
		}
	default: // no field of the API has another kind
	}
	return earmark.Invalidf(path, "is %s; %s is needed", kindOf(token), wanted(target.Type()))
}

func (d decoder) object(path string, target reflect.Value) error {
	seen := map[string]bool{}
	for d.tokens.More() {
		token, err := d.next(path)
		if err != nil {
			return err
		}
		name, _ := token.(string) // the decoder accepts no other name
		field := earmark.Clip(name)
		if path != "" {
			field = path + "." + field
		}
		if seen[name] {
			return earmark.Invalidf(field, "is given twice")
		}
		seen[name] = true
		if err := d.member(field, name, target); err != nil {
			return err
		}
	}
	_, err := d.next(path) // the closing brace
	return err
}

// member stores the value that follows name in an object.
func (d decoder) member(path, name string, target reflect.Value) error {
	if target.Kind() == reflect.Map {
		value := reflect.New(target.Type().Elem()).Elem()
		token, err := d.next(path)
		if err != nil {
			return err
		}
		if err := d.value(path, token, value); err != nil {
			return err
		}
		if target.IsNil() {
			target.Set(reflect.MakeMap(target.Type()))
		}
		target.SetMapIndex(reflect.ValueOf(name), value)
		return nil
	}
	known := fieldsOf(target.Type())
	i := slices.Index(known.names, name)
	if i < 0 {
		return earmark.Invalidf(path, "is not a field here; allowed are %s", strings.Join(known.names, ", "))
	}
	field := target.FieldByIndex(known.indexes[i])
	if field.Type() == rawType {
		return d.raw(path, field)
	}
	token, err := d.next(path)
	if err != nil {
		return err
	}
	return d.value(path, token, field)
}

var rawType = reflect.TypeFor[json.RawMessage]()

// raw stores a value as it is; what reads it checks its members.
func (d decoder) raw(path string, target reflect.Value) error {
	var raw json.RawMessage
	if err := d.tokens.Decode(&raw); err != nil {
		return earmark.Invalidf(path, "is not JSON at byte %d", d.tokens.InputOffset())
	}
	if string(raw) == "null" {
		return earmark.Invalidf(path, "is null; leave it out or give an object")
	}
	target.SetBytes(raw)
	return nil
}

func (d decoder) array(path string, target reflect.Value) error {
	for i := 0; d.tokens.More(); i++ {
		element := reflect.New(target.Type().Elem()).Elem()
		at := fmt.Sprintf("%s[%d]", path, i)
		token, err := d.next(at)
		if err != nil {
			return err
		}
		if err := d.value(at, token, element); err != nil {
			return err
		}
		target.Set(reflect.Append(target, element))
	}
	_, err := d.next(path) // the closing bracket
	return err
}

// null stores a null: nil in a *T; in a **T a pointer to nil, which distinguishes "remove
// it" from "left out".
func null(path string, target reflect.Value) error {
	isNested := target.Kind() == reflect.Pointer && target.Type().Elem().Kind() == reflect.Pointer
	if target.Kind() != reflect.Pointer || !slices.Contains(nullableFields, path) && (!isNested || path != removableField) {
		return earmark.Invalidf(path, "is null; leave it out or give %s", wanted(target.Type()))
	}
	target.SetZero()
	if isNested {
		target.Set(reflect.New(target.Type().Elem()))
	}
	return nil
}

func integer(path string, number json.Number, target reflect.Value) error {
	n, err := strconv.ParseInt(number.String(), 10, 64)
	switch {
	case err == nil:
		target.SetInt(n)
		return nil
	case strings.ContainsAny(number.String(), ".eE"):
		return earmark.Invalidf(path, "%s is not a whole number in digits; a fraction or an exponent is not allowed", earmark.Clip(number.String()))
	}
	return earmark.Invalidf(path, "%s is out of range; the largest whole number is 9223372036854775807", earmark.Clip(number.String()))
}

// fieldsOf returns the JSON names of a request's fields, those of embedded structs
// included, in order, and where they are. Every field of a request has a name.
func fieldsOf(t reflect.Type) *fields {
	if known, ok := fieldsByType.Load(t); ok {
		return known.(*fields) //nolint:forcetypeassert // only this function stores
	}
	f := &fields{}
	for _, field := range reflect.VisibleFields(t) {
		if field.Anonymous {
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		f.names, f.indexes = append(f.names, name), append(f.indexes, field.Index)
	}
	fieldsByType.Store(t, f)
	return f
}

// fields are the JSON names of a struct's fields, and where they are.
type fields struct {
	names   []string
	indexes [][]int
}

var fieldsByType sync.Map // *fields by reflect.Type: as many as there are types of bodies

// kindOf names the kind of a token, for people.
func kindOf(token json.Token) string {
	switch token.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case string:
		return "a text"
	case json.Number:
		return "a number"
	}
	if token == json.Delim('[') {
		return "a list"
	}
	return "an object"
}

// wanted names the kind that a field accepts, for people.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int64:
		return "a whole number"
	default: // a struct or a map
		return "an object"
	}
}
