// Package policy decides which methods a calling service may call, for which accounts and identities. It knows neither gRPC nor the file
// that rules come from: the accounts package reads them, and the service asks for each call.
package policy

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A Rule permits callers to make calls. A field that is empty permits nothing, except Methods.
type Rule struct {
	// Line is where the rule begins in its file, counted from 1; 0 if that is not known.
	Line int
	// Certificates are the names of callers that have certificates, and Subjects those of callers that have tokens.
	Certificates, Subjects []Pattern
	// AllAccounts permits calls for every account that the server handles, otherwise Accounts for those listed.
	AllAccounts bool
	Accounts    []string
	// Methods are the methods that the callers may call; nil means all.
	Methods []Method
	// Tokens are the schemes of the tokens that the callers may send, ConsumerToken and AgentToken. They may also sign in to get one.
	Tokens []share.Scheme
	// Consumers are the consumers that the callers may name by ExternalConsumerID: whole ids, or the beginning of ids followed by "*".
	Consumers []string
}

// A part is a part of a Request that a rule may not permit, in the order in which they are checked.
type part int

const (
	callerPart part = iota
	accountPart
	methodPart
	identityPart // the token or the consumer
	noPart
)

// denies returns the first part of a request of one of its callers that the rule does not permit; noPart if it permits the request.
func (r *Rule) denies(q Request) part {
	switch {
	case !r.AllAccounts && !slices.Contains(r.Accounts, q.Account):
		return accountPart
	case r.Methods != nil && !slices.Contains(r.Methods, q.Method):
		return methodPart
	case !r.permitsIdentity(q):
		return identityPart
	}
	return noPart
}

func (r *Rule) permitsIdentity(q Request) bool {
	if q.Scheme != share.ExternalConsumerID {
		return slices.Contains(r.Tokens, q.Scheme)
	}
	return slices.ContainsFunc(r.Consumers, func(pattern string) bool {
		if start, ok := strings.CutSuffix(pattern, "*"); ok {
			return strings.HasPrefix(q.Consumer, start)
		}
		return q.Consumer == pattern
	})
}

// CheckConsumer checks an element of Rule.Consumers.
func CheckConsumer(pattern string) error {
	id := strings.TrimSuffix(pattern, "*")
	if strings.Contains(id, "*") {
		return errors.New("* is allowed only at the end of a consumer's id")
	}
	if pattern == "" || id != "" && !share.IsPrintableWord(id) {
		return errors.New("must be a consumer's id, or its beginning and *")
	}
	return nil
}

// A Request is what a caller asks for, as far as it matters for a Policy.
type Request struct {
	Caller  Caller
	Account string
	Method  Method
	// Scheme is the scheme of the call's credential, or of the token that a sign-in returns.
	Scheme share.Scheme
	// Consumer is the consumer that the call names; empty except with ExternalConsumerID.
	Consumer string
}

// A Policy is a list of rules. What no rule permits is denied. It must not be modified. The nil Policy denies everything.
type Policy struct {
	rules    []Rule
	exact    map[Name][]*Rule
	patterns []patternRule
}

type patternRule struct {
	Pattern
	*Rule
}

// New returns a Policy.
func New(rules []Rule) *Policy {
	p := &Policy{rules: rules, exact: make(map[Name][]*Rule)}
	for i := range rules {
		r := &rules[i]
		for _, c := range slices.Concat(r.Certificates, r.Subjects) {
			if name, ok := c.name(); ok {
				p.exact[name] = append(p.exact[name], r)
			} else {
				p.patterns = append(p.patterns, patternRule{c, r})
			}
		}
	}
	return p
}

// Equal reports whether two policies have the same rules, on whatever lines.
func (p *Policy) Equal(other *Policy) bool {
	if p == nil || other == nil {
		return p == other
	}
	return slices.EqualFunc(p.rules, other.rules, func(a, b Rule) bool {
		a.Line, b.Line = 0, 0
		return reflect.DeepEqual(a, b)
	})
}

// Check returns CallerNotPermitted with a reason unless a rule permits the request.
func (p *Policy) Check(q Request) error {
	_, err := p.Decide(q)
	return err
}

// Decide returns the first rule that permits the request. If none does, it returns CallerNotPermitted with the part of the request that
// the rules deny: of the rules for the caller, those that permit most of it count.
func (p *Policy) Decide(q Request) (*Rule, error) {
	denied := callerPart
	for r := range p.rulesOf(q.Caller.Name) {
		part := r.denies(q)
		if part == noPart {
			return r, nil
		}
		denied = max(denied, part)
	}
	return nil, share.Reject(share.CallerNotPermitted, "%s; the operator of the server permits it under callers in the accounts file", denied.reason(q))
}

// reason says that the part of the request is denied.
func (denied part) reason(q Request) string {
	caller := fmt.Sprintf("the caller %.256q", q.Caller.Name)
	switch {
	case q.Caller.Name == Name{}:
		return "the caller's certificate has no URI, DNS name or common name, by which a rule could permit its calls"
	case denied == callerPart:
		return caller + " is named by no rule"
	case denied == accountPart:
		return fmt.Sprintf("%s may not call for account %s", caller, q.Account)
	case denied == methodPart:
		return fmt.Sprintf("%s may not call %s for account %s", caller, q.Method, q.Account)
	case q.Scheme == share.ExternalConsumerID:
		return fmt.Sprintf("%s may not call %s for this consumer of account %s", caller, q.Method, q.Account)
	}
	return fmt.Sprintf("%s may not call %s with %s for account %s", caller, q.Method, q.Scheme, q.Account)
}

// rulesOf returns the rules for a caller.
func (p *Policy) rulesOf(n Name) func(yield func(*Rule) bool) {
	return func(yield func(*Rule) bool) {
		if p == nil {
			return
		}
		for _, r := range p.exact[n] {
			if !yield(r) {
				return
			}
		}
		for _, pattern := range p.patterns {
			if pattern.Matches(n) && !yield(pattern.Rule) {
				return
			}
		}
	}
}
