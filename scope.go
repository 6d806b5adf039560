package earmark

import (
	"fmt"
	"regexp"
	"strings"
)

// Limits of a scope, see ValidateScope.
const (
	MaxScopes       = 8   // scopes that one reservation may name
	MaxScopeDepth   = 8   // segments of one scope
	MaxSegmentBytes = 63  // length of one segment
	MaxScopeBytes   = 255 // length of one scope
)

var segmentPattern = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,63}$`)

// ValidateScope checks the form of a scope, such as "acme/ml/u1"; field names the input in
// the error, which is CodeInvalidRequest.
func ValidateScope(field, scope string) error {
	if scope == "" {
		return Invalidf(field, "is empty; a scope is a path such as acme/ml/u1")
	}
	if len(scope) > MaxScopeBytes {
		return Invalidf(field, "is %d bytes long; at most %d are allowed", len(scope), MaxScopeBytes)
	}
	segments := strings.Split(scope, "/")
	if len(segments) > MaxScopeDepth {
		return Invalidf(field, "%q has %d segments; at most %d are allowed", Clip(scope), len(segments), MaxScopeDepth)
	}
	for _, segment := range segments {
		if !segmentPattern.MatchString(segment) {
			return Invalidf(field, "%q is not a scope: segments between slashes have 1 to %d of A-Z, a-z, 0-9, _, . and -; encode other ids, such as a@b.com as x--a_40b.com", Clip(scope), MaxSegmentBytes)
		}
	}
	return nil
}

// templateSegment is the last segment of a template's scope.
const templateSegment = "*"

// ValidateBudgetScope checks the scope of a budget: that of ValidateScope, or of a template, whose last
// segment is "*", such as "app/users/*". The error is as for ValidateScope.
func ValidateBudgetScope(field, scope string) error {
	parent, isTemplate := cutTemplate(scope)
	switch {
	case scope == templateSegment:
		return nil
	case strings.Contains(parent, templateSegment):
		return Invalidf(field, "%q is not a scope: * is only allowed as the whole last segment, as in app/users/*", Clip(scope))
	case !isTemplate:
		return ValidateScope(field, scope)
	}
	return ValidateScope(field, parent+"/a") // which is as long and as deep
}

// cutTemplate returns the scope whose children a template gives budgets to, "" for all scopes of one
// segment; or scope itself and false.
func cutTemplate(scope string) (parent string, isTemplate bool) {
	if scope == templateSegment {
		return "", true
	}
	return strings.CutSuffix(scope, "/"+templateSegment)
}

func validateScopes(scopes []string) error {
	if len(scopes) == 0 {
		return Invalidf("scopes", "name at least one scope, such as [\"acme/ml/u1\"]")
	}
	if len(scopes) > MaxScopes {
		return Invalidf("scopes", "%d scopes are named; at most %d are allowed", len(scopes), MaxScopes)
	}
	for i, scope := range scopes {
		if err := ValidateScope(fmt.Sprintf("scopes[%d]", i), scope); err != nil {
			return err
		}
	}
	return nil
}

// ScopePaths returns every scope on the path of scope, the widest first: "acme/ml/u1"
// returns "acme", "acme/ml" and "acme/ml/u1".
func ScopePaths(scope string) []string {
	var paths []string
	for i, char := range scope {
		if char == '/' {
			paths = append(paths, scope[:i])
		}
	}
	return append(paths, scope)
}
