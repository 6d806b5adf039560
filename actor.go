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

// String is the actor as entries name it: "workflow", or "operator:alice".
func (a Actor) String() string {
	if a.Name == "" {
		return string(a.Kind)
	}
	return string(a.Kind) + ":" + a.Name
}

// MarshalText writes the actor as String does; JSON uses it.
func (a Actor) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (a *Actor) UnmarshalText(text []byte) error {
	kind, name, _ := strings.Cut(string(text), ":")
	*a = Actor{Kind: ActorKind(kind), Name: name}
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
