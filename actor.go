package earmark

import (
	"regexp"
	"strings"
)

// ActorKind is the kind of actor that makes a transition: a part of the product, or a
// person.
type ActorKind string

// The kinds of actors.
const (
	ActorKindWorkflow   ActorKind = "workflow"   // the reservation's own workflow
	ActorKindAPI        ActorKind = "api"        // the HTTP API, without the workflow
	ActorKindSweeper    ActorKind = "sweeper"    // the sweeper of a worker process
	ActorKindReconciler ActorKind = "reconciler" // the reconciler, which finds reservations without a workflow
	ActorKindOperator   ActorKind = "operator"   // a person, named by Actor.Name
)

// Actor is the one that makes a transition.
type Actor struct {
	Kind ActorKind
	Name string // of an operator; empty for every other kind
	Key  string // id of the API key of the call; empty without a key
}

// The actors of the product itself.
var (
	ActorWorkflow   = Actor{Kind: ActorKindWorkflow}
	ActorAPI        = Actor{Kind: ActorKindAPI}
	ActorSweeper    = Actor{Kind: ActorKindSweeper}
	ActorReconciler = Actor{Kind: ActorKindReconciler}
)

// OperatorActor returns the actor for a person who settles in the caller's place.
func OperatorActor(name string) Actor { return Actor{Kind: ActorKindOperator, Name: name} }

// Operator returns the person's name, "" if the actor is not an operator.
func (a Actor) Operator() string {
	if a.Kind != ActorKindOperator {
		return ""
	}
	return a.Name
}

// Named reports whether the actor says more than which part of the product acted: a person, or a key.
func (a Actor) Named() bool { return a.Operator() != "" || a.Key != "" }

const keyPrefix = "key:"

// WithKey returns the actor with the id of the API key of its call; empty for none.
func (a Actor) WithKey(id string) Actor {
	a.Key = id
	return a
}

// String returns the actor in the form of a journal entry: "workflow", "operator:alice", "key:<id>" for a call
// of the API with a key, or "operator:alice key:<id>".
func (a Actor) String() string {
	text := string(a.Kind)
	if a.Name != "" {
		text += ":" + a.Name
	}
	switch {
	case a.Key == "":
		return text
	case a.Kind == ActorKindAPI:
		return keyPrefix + a.Key
	}
	return text + " " + keyPrefix + a.Key
}

// MarshalText writes the actor as String does; JSON uses it.
func (a Actor) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (a *Actor) UnmarshalText(text []byte) error {
	if key, ok := strings.CutPrefix(string(text), keyPrefix); ok {
		*a = ActorAPI.WithKey(key)
		return nil
	}
	who, key, _ := strings.Cut(string(text), " "+keyPrefix)
	kind, name, _ := strings.Cut(who, ":")
	*a = Actor{Kind: ActorKind(kind), Name: name, Key: key}
	return nil
}

// MaxOperatorBytes bounds an operator's name.
const MaxOperatorBytes = 64

var operatorPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.@+-]*$`)

// ValidateOperator checks the name of an operator: 1 to MaxOperatorBytes of A-Z, a-z, 0-9,
// _, ., @, + and -, the first a letter or digit. The error is CodeInvalidRequest.
func ValidateOperator(name string) error {
	if len(name) > MaxOperatorBytes {
		return Invalidf("operator", "is %d bytes long; at most %d are allowed", len(name), MaxOperatorBytes)
	}
	if !operatorPattern.MatchString(name) {
		return Invalidf("operator", "%q is not a name: A-Z, a-z, 0-9, _, ., @, + and - are allowed, the first a letter or digit", Clip(name))
	}
	return nil
}
