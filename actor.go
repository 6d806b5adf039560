package earmark

import (
	"regexp"
	"strings"
)

// ActorKind is the part of the product that makes a transition, or a person.
type ActorKind string

// The kinds of actors.
const (
	ActorKindWorkflow   ActorKind = "workflow"   // the reservation's own workflow
	ActorKindAPI        ActorKind = "api"        // the HTTP API, past the workflow
	ActorKindSweeper    ActorKind = "sweeper"    // the sweeper of a worker process
	ActorKindReconciler ActorKind = "reconciler" // the reconciler, which finds reservations without a workflow
	ActorKindOperator   ActorKind = "operator"   // a person; Actor.Name says who
)

// Actor is who makes a transition.
type Actor struct {
	Kind ActorKind
	Name string // of an operator; empty for any other kind
	Key  string // id of the API key that the call came with; empty where it came with none
}

// The actors that are no persons.
var (
	ActorWorkflow   = Actor{Kind: ActorKindWorkflow}
	ActorAPI        = Actor{Kind: ActorKindAPI}
	ActorSweeper    = Actor{Kind: ActorKindSweeper}
	ActorReconciler = Actor{Kind: ActorKindReconciler}
)

// OperatorActor is a person who settles in the caller's place.
func OperatorActor(name string) Actor { return Actor{Kind: ActorKindOperator, Name: name} }

// Operator is the name of the person, "" where the actor is none.
func (a Actor) Operator() string {
	if a.Kind != ActorKindOperator {
		return ""
	}
	return a.Name
}

const keyPrefix = "key:"

// WithKey is the actor who acts with an API key, given by its id; empty for none.
func (a Actor) WithKey(id string) Actor {
	a.Key = id
	return a
}

// String is the actor as entries name it: "workflow", "operator:alice", "key:<id>" for a call of the API with
// a key, or "operator:alice key:<id>".
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

// ValidateOperator checks the name of a person who settles something.
func ValidateOperator(name string) error {
	if len(name) > MaxOperatorBytes {
		return Invalidf("operator", "is %d bytes long; at most %d are allowed", len(name), MaxOperatorBytes)
	}
	if !operatorPattern.MatchString(name) {
		return Invalidf("operator", "%q is not a name: A-Z, a-z, 0-9, _, ., @, + and - are allowed, the first a letter or digit", Clip(name))
	}
	return nil
}
