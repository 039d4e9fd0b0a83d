// Package policy decides for which accounts and identities a calling service may make calls. It knows neither gRPC nor the file
// that rules come from: the accounts package reads them, and the service asks for each call.
package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A Rule permits callers to make calls. A field that is empty permits nothing.
type Rule struct {
	// Certificates are the names of the callers.
	Certificates []Pattern
	// AllAccounts permits calls for every account that the server handles, otherwise Accounts for those listed.
	AllAccounts bool
	Accounts    []string
	// Tokens are the schemes of the tokens that the callers may send, ConsumerToken and AgentToken. They may also sign in to get one.
	Tokens []share.Scheme
	// Consumers are the consumers that the callers may name by ExternalConsumerID: whole ids, or the beginning of ids followed by "*".
	Consumers []string
}

// permits reports whether the rule permits a request of one of its callers.
func (r *Rule) permits(q Request) bool {
	if !r.covers(q.Account) {
		return false
	}
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

func (r *Rule) covers(account string) bool {
	return r.AllAccounts || slices.Contains(r.Accounts, account)
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
	// Scheme is the scheme of the call's credential, or of the token that a sign-in returns.
	Scheme share.Scheme
	// Consumer is the consumer that the call names; empty except with ExternalConsumerID.
	Consumer string
}

// A Policy is a list of rules. What no rule permits is denied. It must not be modified. The nil Policy denies everything.
type Policy struct {
	exact    map[Name][]*Rule
	patterns []patternRule
}

type patternRule struct {
	Pattern
	*Rule
}

// New returns a Policy.
func New(rules []Rule) *Policy {
	p := &Policy{exact: make(map[Name][]*Rule)}
	for i := range rules {
		r := &rules[i]
		for _, c := range r.Certificates {
			if name, ok := c.name(); ok {
				p.exact[name] = append(p.exact[name], r)
			} else {
				p.patterns = append(p.patterns, patternRule{c, r})
			}
		}
	}
	return p
}

// Check returns CallerNotPermitted with a reason unless a rule permits the request.
func (p *Policy) Check(q Request) error {
	known, account := false, false
	for r := range p.rulesOf(q.Caller.Name) {
		if r.permits(q) {
			return nil
		}
		known, account = true, account || r.covers(q.Account)
	}
	subject, why := fmt.Sprintf("the caller %.256q", q.Caller.Name), ""
	switch {
	case q.Caller.Name == Name{}:
		subject, why = "the caller's certificate", "has no URI, DNS name or common name, by which a rule could permit its calls"
	case !known:
		why = "is named by no rule"
	case !account:
		why = "may not call for account " + q.Account
	case q.Scheme == share.ExternalConsumerID:
		why = "may not call for this consumer of account " + q.Account
	default:
		why = fmt.Sprintf("may not use %s for account %s", q.Scheme, q.Account)
	}
	return share.Reject(share.CallerNotPermitted, "%s %s; the operator of the server permits it under callers in the accounts file", subject, why)
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
			if pattern.matches(n) && !yield(pattern.Rule) {
				return
			}
		}
	}
}
