package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"text/tabwriter"

	"github.com/alecthomas/kong"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
	"github.com/lpfileshare/lpfileshare/internal/cmdline"
	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// policyCommands are the commands below "lpfileshare-server policy", which need no server. They have a command line of their own, so that
// the server's flags are not theirs.
type policyCommands struct {
	Test policyTest `cmd:"" help:"Show what the rules for callers permit. Exit code: 0 if a call is permitted, or all cases are as expected; 1 if not; 2 for an error."`
}

// policyTest is the command "policy test".
type policyTest struct {
	Accounts string `required:"" env:"LPFILESHARE_ACCOUNTS" placeholder:"FILE" help:"YAML file with the rules, under callers. Its secrets are not read."`
	Cases    string `placeholder:"FILE" help:"YAML file of questions and expected answers, instead of the flags below; see docs/accounts.md."`
	Caller   string `placeholder:"NAME" help:"Name of the caller, for example uri:spiffe://example.com/chat."`
	Account  string `placeholder:"ID" help:"Account. Default: all accounts that the file names."`
	Method   string `placeholder:"NAME" help:"Method, or a group of methods: read, write, sign-in, account-settings. Default: all methods."`
	Token    string `enum:"consumer,agent," default:"" placeholder:"OF" help:"Whose token the caller sends, or gets by signing in: consumer or agent. Default: both."`
	Consumer string `placeholder:"ID" help:"Consumer that the caller names by lp-external-consumer-id, instead of a token."`
}

// runPolicy runs a command of policyCommands and returns its exit code.
func runPolicy(args []string, stdout, stderr io.Writer) int {
	const permitted, denied, failed = 0, 1, 2
	commands, exited := &policyCommands{}, -1
	k, err := kong.New(commands,
		kong.Name("lpfileshare-server policy"), kong.Description("Tests the rules for callers of an accounts file, without a server."),
		kong.Writers(stdout, stderr), kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.Exit(func(code int) { exited = code }), cmdline.RawStrings(),
	)
	if err != nil { // a mistake in the tags above
		panic(err)
	}
	_, err = k.Parse(args)
	if exited >= 0 {
		return exited
	}
	ok := false
	if err == nil {
		ok, err = commands.Test.run(stdout)
	}
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "lpfileshare-server policy: %v\n", err)
		return failed
	case !ok:
		return denied
	}
	return permitted
}

// Validate checks which of the flags are set.
func (t *policyTest) Validate() error {
	switch {
	case t.Cases != "" && t.Caller+t.Account+t.Method+t.Token+t.Consumer != "":
		return errors.New("--cases has all questions; leave out --caller, --account, --method, --token and --consumer")
	case t.Cases == "" && t.Caller == "":
		return errors.New("add --caller NAME, for example uri:spiffe://example.com/chat, or --cases FILE")
	case t.Token != "" && t.Consumer != "":
		return errors.New("--token and --consumer exclude each other: a call has one identity")
	}
	return nil
}

// run prints the answers. It returns whether a call is permitted, or all cases are as expected.
func (t *policyTest) run(out io.Writer) (bool, error) {
	any := func(string) error { return nil } // hosts and limits depend on the server's flags, and do not matter here
	set, err := accounts.Read(t.Accounts, accounts.Rules{
		Flags:    accounts.Account{Messenger: accounts.Messaging, Settings: share.Settings{MaxImagePixels: math.MaxInt64}},
		Services: services, CheckDomain: any, CheckSuffix: any, NoSecrets: true,
	})
	if err != nil {
		return false, err
	}
	if set.Callers == nil {
		return false, fmt.Errorf("%s has no rules; add callers", t.Accounts)
	}
	rules := ruleFile{t.Accounts, set}
	if t.Cases != "" {
		cases, err := accounts.ReadCases(t.Cases)
		if err != nil {
			return false, err
		}
		return rules.check(out, t.Cases, cases), nil
	}
	question, err := t.question(set)
	if err != nil {
		return false, err
	}
	return rules.print(out, question), nil
}

// question returns what the flags ask, as a case.
func (t *policyTest) question(set *accounts.Set) (*accounts.Case, error) {
	name, err := policy.ParseName(t.Caller)
	if err != nil {
		return nil, fmt.Errorf("--caller: %w", err)
	}
	q := &accounts.Case{Callers: []policy.Name{name}, Accounts: []string{t.Account}, Methods: policy.Methods()}
	if t.Account == "" {
		if q.Accounts = slices.Sorted(maps.Keys(set.Named)); len(q.Accounts) == 0 {
			return nil, errors.New("the file names no account; add --account ID")
		}
	} else if !share.ValidAccountID(t.Account) {
		return nil, fmt.Errorf("--account %q is not an account id; use %s", t.Account, share.AccountIDRule)
	}
	if t.Method != "" {
		if q.Methods, err = policy.ParseMethods(t.Method); err != nil {
			return nil, fmt.Errorf("--method: %w", err)
		}
	}
	switch {
	case t.Consumer != "":
		q.Consumers = []string{t.Consumer}
	case t.Token == "":
		q.Tokens = []share.Scheme{share.ConsumerToken, share.AgentToken}
	case t.Token == "consumer":
		q.Tokens = []share.Scheme{share.ConsumerToken}
	default:
		q.Tokens = []share.Scheme{share.AgentToken}
	}
	if len(slices.Collect(q.Requests)) == 0 {
		return nil, fmt.Errorf("--method %s: a sign-in returns no such identity", t.Method)
	}
	return q, nil
}

// A ruleFile is an accounts file with rules for callers.
type ruleFile struct {
	path string
	set  *accounts.Set
}

// answer returns where the rule is that permits a request, or why the request is denied.
func (f ruleFile) answer(q policy.Request) (rule, denied string) {
	if _, named := f.set.Named[q.Account]; !named && f.set.Others == nil {
		return "", fmt.Sprintf("%s has no account %s", f.path, q.Account)
	}
	r, err := f.set.Callers.Decide(q)
	if rejected, ok := errors.AsType[*share.Error](err); ok {
		return "", rejected.Message
	}
	return fmt.Sprintf("%s:%d", f.path, r.Line), ""
}

// print prints the answers to the requests of a case: a sentence for one, a table for several. It reports whether one is permitted.
func (f ruleFile) print(out io.Writer, c *accounts.Case) (any bool) {
	requests := slices.Collect(c.Requests)
	if len(requests) == 1 {
		rule, denied := f.answer(requests[0])
		if denied != "" {
			fmt.Fprintf(out, "denied: %s\n", denied)
			return false
		}
		fmt.Fprintf(out, "permitted: by the rule at %s\n", rule)
		return true
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ACCOUNT\tMETHOD\tIDENTITY\tANSWER")
	for _, q := range requests {
		rule, denied := f.answer(q)
		answer := "denied"
		if denied == "" {
			answer, any = "permitted by "+rule, true
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", q.Account, q.Method, identity(q), answer)
	}
	_ = table.Flush()
	return any
}

// identity names the identity of a request.
func identity(q policy.Request) string {
	return map[share.Scheme]string{
		share.ConsumerToken: "consumer token", share.AgentToken: "agent token", share.ExternalConsumerID: "consumer " + q.Consumer,
	}[q.Scheme]
}

// check prints the answers that differ from those expected by the cases of a file, and reports whether there are none.
func (f ruleFile) check(out io.Writer, file string, cases []accounts.Case) bool {
	total, wrong := 0, 0
	for _, c := range cases {
		for q := range c.Requests {
			total++
			rule, denied := f.answer(q)
			if (denied == "") == c.Permitted {
				continue
			}
			wrong++
			fmt.Fprintf(out, "%s:%d: %s, account %s, %s, %s: %s\n", file, c.Line, q.Caller.Name, q.Account, q.Method, identity(q),
				cmp.Or(denied, "want denied, but it is permitted by "+rule))
		}
	}
	fmt.Fprintf(out, "%d of %d answers are as expected\n", total-wrong, total)
	return wrong == 0
}
